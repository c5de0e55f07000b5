"""What a file says of its network besides the weights: in its entries, and in Lightning's hyper-parameters.

The hyper-parameters of learnable_polyphase_sampling are Python objects of the training program. They are read
as descriptions, of which this takes the choices that leave no trace in the weights.
"""

from collections.abc import Mapping
from typing import Any

from aliasfree_jax.conversion.alias_free_convnets import AFC
from aliasfree_jax.conversion.antialiased_cnns import BLURPOOL
from aliasfree_jax.conversion.entries import Options
from aliasfree_jax.conversion.truly_shift_invariant_cnns import IMAGENET_APS
from aliasfree_jax.pickles.inert import Description

_PLAIN = ("padding_mode",)
_EXTRAS = ("maxpool_zpad", "conv1_stride", "swap_conv_pool", "inc_conv1_support", "apply_maxpool")
# Keywords of the polyphase layer and the options of the command line that set them.
_KEYWORDS = {
    "logits_pad": "logits_pad",
    "selection_noantialias": "selection_noantialias",
    "comp_convex": "LPS_convex",
    "comp_train_convex": "LPS_train_convex",
    "comp_fix_train": "LPS_gumbel",
}


def with_hyper_parameters(recognised: Options, hyper_parameters: object) -> dict[str, Any]:
    """The options read off the weights, completed by the file's hyper-parameters.

    What both say is taken from the weights; what is not of the expected form is passed over.
    """
    options = dict(recognised)
    if not isinstance(hyper_parameters, Mapping):
        return options
    options |= {name: hyper_parameters[name] for name in _PLAIN if name in hyper_parameters}
    extras = hyper_parameters.get("extras_model")
    if isinstance(extras, Mapping):
        options |= {name: extras[name] for name in _EXTRAS if name in extras and name not in recognised}
    _, keywords = _call(hyper_parameters.get("pooling_layer"))
    options |= {ours: keywords[name] for name, ours in _KEYWORDS.items() if name in keywords}
    logits, _ = _call(keywords.get("get_logits"))
    if logits and "logits" in recognised:
        options["logits"] = logits  # weights do not tell LPSLogitLayers from LPSLogitLayersSkip
    _, filter_keywords = _call(keywords.get("antialias_layer"))
    padding = filter_keywords.get("padding_mode", filter_keywords.get("pad_type"))
    if padding and "antialias" in recognised:
        kind, size, _, *groups = recognised["antialias"]
        options["antialias"] = [kind, size, padding, *groups]
    return options


def states_no_filter(hyper_parameters: object) -> bool:
    """Whether the hyper-parameters describe the pooling layer, and no filter in it."""
    layer = hyper_parameters.get("pooling_layer") if isinstance(hyper_parameters, Mapping) else None
    name, keywords = _call(layer)
    return bool(name) and keywords.get("antialias_layer") is None


def _call(value: object) -> tuple[str, Options]:
    """Name, without its module, and keywords of a class or of a `functools.partial` of one."""
    keywords: Options = {}
    while isinstance(value, Description) and value.name == "functools.partial":
        state = value.state
        if not (isinstance(state, tuple) and len(state) == 4 and isinstance(state[2], Mapping)):
            return "", {}
        value, keywords = state[0], {**state[2], **keywords}
    return (value.rpartition(".")[2], keywords) if isinstance(value, str) else ("", {})


def stated(source: str, arch: object, args: object) -> dict[str, Any]:
    """What the file itself says of its filters beside the weights: the option, or nothing.

    Args:
      arch: its entry of that name, such as "resnet18_aps3".
      args: the arguments of the training command, as a mapping or record.
    """
    if (
        source in (IMAGENET_APS.source, BLURPOOL.source)
        and isinstance(arch, str)
        and arch[-4:-1] in ("aps", "lpf")
        and arch[-1].isdigit()
    ):
        return {"filter_size": int(arch[-1])}
    values = args if isinstance(args, Mapping) else getattr(args, "__dict__", {})
    kwargs = values.get("blurpool_kwargs") if source == AFC.source else None
    return {"blurpool_kwargs": kwargs} if isinstance(kwargs, dict) and kwargs else {}
