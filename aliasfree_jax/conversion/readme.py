"""Writes the README.md of a published network: what it is, how to load it, and what was measured.

It begins with the YAML that model hubs read. It makes no claims about quality except the table of results.
"""

import inspect
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from aliasfree_jax.checkpoint import ModelCard, PyTree
from aliasfree_jax.data.views import is_warped
from aliasfree_jax.evaluation.evaluator import Results
from aliasfree_jax.evaluation.report import format_markdown, markdown
from aliasfree_jax.foreign import Adapted
from aliasfree_jax.layers.layer import Factory
from aliasfree_jax.models.parts import KIND_OF_OPTION, PARTS

LIBRARY = "aliasfree_jax"
# What each part does, by its kind and name. A test checks that the list is complete.
WORDS: dict[str, dict[str, str]] = {
    "sampler": {
        "subsample": "strided: only one of every few values is kept",
        "blur": "a binomial filter blurs each feature map before it is subsampled (BlurPool)",
        "ideal": "an ideal low-pass filter is applied before subsampling",
        "adaptive_blur": "filters that depend on the map blur it before it is subsampled (DDAC)",
        "polyphase": "the polyphase component with the best score is kept (adaptive polyphase sampling, APS)",
        "learned_polyphase": "a small network chooses the polyphase component to keep (LPS)",
        "norm_preserving": "feature maps are filtered and subsampled, then scaled to their previous norm",
    },
    "upsampler": {
        "transposed": "transposed convolutions enlarge the feature maps",
        "bilinear": "bilinear interpolation enlarges the feature maps",
        "polyphase": "values return to the polyphase component that was kept, with zeros between them",
        "ideal": "ideal interpolation enlarges the feature maps",
    },
    "activation": {
        "identity": "none",
        "gelu": "GELU",
        "up_gelu": "GELU on a finer grid, which still aliases",
        "relu": "ReLU",
        "relu6": "ReLU6",
        "polynomial": "a learned polynomial for each channel",
        "up_polynomial": "a learned polynomial for each channel, on a finer grid",
        "lowpass_polynomial": "a learned quadratic for each channel; its square has one low-passed factor",
        "up_self_gate": "the product of each channel with a learned mixture of all channels, on a finer grid",
        "gate": "the product of two channels",
        "up_gate": "the product of two channels, on a finer grid",
        "lowpass_gate": "the product of two channels, one of them low-pass filtered",
        "bandlimited_gate": "the product of two channels, both low-pass filtered",
    },
    "norm": {
        "channel": "layer norm over the channels of each pixel",
        "spatial": "layer norm with one variance for each image",
        "position": "layer norm with a mean for each channel and one variance for each image",
        "batch": "batch norm",
        "bounded_batch": "batch norm of maps divided by the root mean square of each image",
        "instance": "instance norm",
        "group": "group norm",
    },
    "conv": {"plain": "plain", "standardised": "kernels with mean 0 and a fixed norm"},
    "class_attention": {
        "class": "attention of a class token to all positions",
        "cross_covariance": "attention between channels, over all positions and a class token",
    },
    "positions": {"fourier": "sines and cosines of the positions are added"},
    "patch_stem": {
        "sampled": "3 x 3 convolutions that sample by 2, each followed by norm and activation",
        "activated": "3 x 3 convolutions, each followed by norm, activation and sampling by 2",
        "first_activated": "3 x 3 convolutions that sample by 2; the first samples after its activation",
    },
    "stem": {
        "image": "a 7 x 7 convolution and a max pool, each with stride 2",
        "deep": "three 3 x 3 convolutions and a max pool",
        "small": "a 3 x 3 convolution at full resolution",
    },
    "shortcut": {
        "projection": "a 1 x 1 convolution where the shape changes",
        "zero_padded": "where the shape changes, the map is subsampled and channels of zeros are added",
    },
    "padding": {
        "CIRCULAR": "circular: the map continues with its opposite edge",
        "ZERO": "zeros",
        "REFLECT": "the mirror image of the map",
        "REPLICATE": "the values at the edge are repeated",
    },
}


def readme(
    name: str, card: ModelCard, module: nn.Module, variables: PyTree, results: Results, licence: str
) -> str:
    """Writes the whole page.

    Args:
      name: The title, e.g. the name of the directory.
      card: Card of the network.
      module: The network.
      variables: Its variables.
      results: Results of exactly these weights, from `stored_results`.
      licence: License in the YAML, by the hub's name. "" for none.
    """
    sections = [
        [_header(licence, _TOLD[card.task]), f"# {name}", _introduction(card, variables)],
        ["## The network", _network(card, module)],
        ["## Use", _use(card)],
        ["## Images", _images(card)],
        ["## Results", _results(results)],
    ]
    return "\n\n".join(part for section in sections for part in section) + "\n"


class _Told(NamedTuple):
    """Texts about the networks of a task: the hub's terms, what they are, what they output, a code line."""

    pipeline: str
    metric: str
    network: str
    outputs: str
    use: str


_TOLD = {
    "classification": _Told(
        *("image-classification", "accuracy", "An image classifier", "the logits of {} classes"),
        "names = [card.outputs()[k] for k in logits.argmax(-1)]",
    ),
    "segmentation": _Told(
        *("image-segmentation", "mean_iou", "A network for semantic segmentation"),
        "the logits of {} classes for every pixel",
        "classes = logits.argmax(-1)  # int [N, rows, columns]; card.outputs() has their names",
    ),
    "regression": _Told(
        *("image-to-image", "psnr", "An image-to-image network"),
        "{} maps of the same size, normalised like the images",
        "",
    ),
}


def _header(licence: str, told: _Told) -> str:
    # JSON strings are valid YAML.
    lines = [f"license: {json.dumps(licence)}"] if licence else []
    lines += [f"library_name: {LIBRARY}", f"pipeline_tag: {told.pipeline}"]
    lines += [f"tags: [jax, flax, {told.pipeline}]", f"metrics: [{told.metric}]"]
    return "\n".join(["---", *lines, "---"])


def _introduction(card: ModelCard, variables: PyTree) -> str:
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    trained = f", after {card.step:,} updates" if card.step else ""
    side, plural, told = card.image_size, "s" * (card.channels != 1), _TOLD[card.task]
    return (
        f"{told.network} of the Python package `{LIBRARY}` (JAX and Flax) with {count:,} parameters. "
        f"Its input is images of {side} x {side} pixels and {card.channels} channel{plural}. Its output is "
        f"{told.outputs.format(len(card.outputs()))}; `config.json` lists their names. The weights come from "
        f"`{card.origin}`{trained}."
    )


def _network(card: ModelCard, module: nn.Module) -> str:
    options = "".join(f", {option}={value!r}" for option, value in card.options.items())
    network = module.network if isinstance(module, Adapted) else module
    rows = [["part", "in this network", "what it does"]]
    for option in network.__dataclass_fields__:
        kind = "padding" if option == "padding" else KIND_OF_OPTION.get(option, "")
        if kind and getattr(network, option) is not None:
            name, fields = _named(kind, getattr(network, option))
            rows.append(
                [option.replace("_", " "), f"`{name}`{_listed(fields)}", WORDS.get(kind, {}).get(name, "")]
            )
    text = [f"`{LIBRARY}.create_model({card.model!r}{options})`", "\n".join(markdown(rows))]
    if card.shift_invariant:
        how = ", ".join(f"{name}={value!r}" for name, value in card.shift_invariant.items())
        text.append(
            f"`{LIBRARY}.shift_invariant` transforms it with `{how}`: every strided operation runs at stride "
            "1, and its result is subsampled after the next non-linearity."
        )
    return "\n\n".join(text)


def _named(kind: str, part: Any) -> tuple[str, Mapping[str, Any]]:
    """The name of a part, and its fields."""
    if isinstance(part, str):
        return part, {}
    module, fields = (part.module, dict(part.fields)) if isinstance(part, Factory) else (part, {})
    return next((name for name, known in PARTS[kind].items() if known is module), repr(module)), fields


def _listed(fields: Mapping[str, Any]) -> str:
    """Formats the fields of a part. Inner parts are shown by name."""
    told = []
    for field, value in fields.items():
        if isinstance(value, Factory | type):
            kind = "logits" if field == "logits" else "sampler"
            name, inner = _named(kind, value)
            value = f"{name}{_listed(inner)}"
        told.append(f"{field.replace('_', ' ')} {value}")
    return f" ({', '.join(told)})" if told else ""


def _use(card: ModelCard) -> str:
    side, told = card.image_size, _TOLD[card.task]
    result = "maps" if card.task == "regression" else "logits"
    return inspect.cleandoc(f"""
        ```python
        import jax
        import {LIBRARY}

        # Or pass the path of a directory with these files.
        card, module, variables = {LIBRARY}.load_pretrained("hf://OWNER/NAME")
        {result} = jax.jit(module.apply)(variables, images)  # float [N, {side}, {side}, {card.channels}]
        {told.use}
        ```

        `python eval.py --checkpoint=hf://OWNER/NAME --config=configs/....py` measures it on your images.
        `python train.py --config.init_from=hf://OWNER/NAME ...` fine-tunes it.
    """)


def _images(card: ModelCard) -> str:
    size = card.preparation()["image_size"]
    square = f"{size} x {size} pixels ({card.interpolation}, antialiased)"
    lines = ["Turn the image upright by its EXIF orientation."] if card.exif else []
    if is_warped(size, card.eval_view):
        lines.append(f"Resize the whole image to {square}. This changes its aspect ratio.")
    else:
        shorter = int(size / card.eval_crop_ratio)
        lines.append(
            f"Resize the shorter side to {shorter} pixels ({card.interpolation}, antialiased) and crop "
            f"the centre to {size} x {size}. An image of exactly this size is not changed."
        )
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (card.mean, card.std))
    lines.append(f"Scale the values to 0 to 1, subtract {mean} and divide by {std} (one number per channel).")
    if card.zero_pad:
        lines.append(f"Pad the image with {card.zero_pad} pixels of zeros on every side.")
    steps = "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))
    return f"`preprocessor_config.json` states how images are prepared. `eval.py` does this:\n\n{steps}"


def _results(results: Results) -> str:
    told = [
        "These results were measured with exactly these weights. No other quality is claimed.",
        format_markdown(results),
    ]
    facts = {"data": _data(results), "chosen as": results.get("chosen_as", "")}
    facts |= {"seed": results.get("seed", ""), "command": _command(results)}
    facts |= {name: results.get(name, "") for name in ("time", "machine", "device")}
    facts["versions"] = ", ".join(
        f"{name} {results[name]}" for name in (LIBRARY, "jax", "python") if name in results
    )
    told.append("How it was measured:")
    told.append("\n".join(f"- {name}: {value}" for name, value in facts.items() if value != ""))
    return "\n\n".join(told)


def _command(results: Results) -> str:
    """The command of the measurement without the machine's directories."""
    return shlex.join(
        re.sub(r"^(--[^=]+=)?/.*/(?=.)", r"\1", word) for word in shlex.split(results.get("command", ""))
    )


def _data(results: Results) -> str:
    """Names the measured images without the machine's directories."""
    data = results.get("data")
    if data is None:
        return ""
    where = " ".join(filter(None, (data["source"], data["name"], Path(data["path"]).name)))
    if results.get("images_of") == "validation":
        return f"{where}, held out of the training split {data['train_split']!r}"
    limited = ", evenly spread (data.eval_limit)" if data["eval_limit"] else ""
    return f"{where}, split {data['eval_split']!r}, {results['images']} images{limited}"
