"""The XCiTs of timm: translation, tensor names and recognition."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from aliasfree_jax.conversion.description import KIND
from aliasfree_jax.conversion.entries import Candidates, CodeBase, Entry, Options
from aliasfree_jax.conversion.fields import Fields, Only
from aliasfree_jax.conversion.xcit_entries import (
    ARGUMENTS,
    ONLY,
    Names,
    State,
    arguments,
    described_sizes,
    published_size,
    read_off,
    sizes_of,
    xcit,
)
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models.xcit import SIZES, XCiT

_FIELDS = Fields(
    translated={
        **ARGUMENTS,
        "tokens_norm": False,
        "use_pos_embed": True,
    },
    without_effect={"img_size", "in_chans", "drop_rate", "pos_drop_rate", "proj_drop_rate"}
    | {"attn_drop_rate", "drop_path_rate", "weight_init", "device", "dtype"},
    only={
        **ONLY,
        "act_layer": Only((None, "gelu"), "another activation"),
        "norm_layer": Only((None, "layernorm"), "another norm"),
        "global_pool": Only(("token",), "another pooling"),
    },
)
_DEFAULT = "xcit_nano_12_p16_224"


def _read(model: str, options: Options) -> dict[str, Any]:
    size = sizes_of(re.sub(r"_(224|384)$", "", model).removeprefix("xcit_"))
    if size is None:
        known = [f"xcit_{name}_224" for name in SIZES if sizes_of(name)]
        raise ConversionError(unknown("XCiT of timm", model, known))
    size["tokens_norm"] = "nano" not in model
    return _FIELDS.read(f"timm's {model}", {**size, **options})


def _translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    read = _read(model, options)
    name, ours = arguments("xcit", read)
    return name, {**ours, "positions": "fourier" if read["use_pos_embed"] else None}


def _entries(network: XCiT, model: str, options: Options) -> Iterator[Entry]:
    stages = network.patch_size.bit_length() - 1
    return xcit(network, Names(range(0, 2 * stages, 2), "pos_embed", "bn", separate=True))


def _architecture(found: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The architecture with these sizes (else nano), and all arguments."""
    size = published_size(found)
    return (f"xcit_{size}_224" if size else _DEFAULT), found


def recognise_timm_xcit(state: State) -> tuple[str, dict[str, Any]] | None:
    """Recognises an XCiT of timm from keys and shapes.

    Returns:
      Architecture and arguments. None for weights of another network.
    """
    found = read_off(state)
    if found is None or "cls_attn_blocks.0.attn.q.weight" not in state:
        return None
    positions = any(key.startswith("pos_embed.") for key in state)
    return _architecture({**found, "use_pos_embed": positions})


def _candidates(network: Mapping[str, Any]) -> Candidates:
    if network[KIND] != "XCiT":
        yield _DEFAULT, {}
        return
    positions = network["positions"] is not None
    yield _architecture({**described_sizes(network), "use_pos_embed": positions})


TIMM_XCIT = CodeBase("timm", _translate, _entries, _candidates)
