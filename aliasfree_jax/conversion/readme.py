"""The README.md of a published network: what it is, how it is loaded and fed, and what was measured.

It begins with the YAML that model hubs read. It says what a network is made of, and of its qualities no more
than the table of results does.
"""

import inspect
import json
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
# What each part does, by its kind and name; a test looks that none is missing.
WORDS: dict[str, dict[str, str]] = {
    "sampler": {
        "subsample": "strides: of every few values of a map one is kept",
        "blur": "maps are blurred by a binomial filter before they are sampled (BlurPool)",
        "ideal": "maps pass an ideal low-pass filter before they are sampled",
        "adaptive_blur": "maps are blurred before they are sampled, by filters that depend on the map (DDAC)",
        "polyphase": "maps are sampled at the phase with the best score (adaptive polyphase sampling, APS)",
        "learned_polyphase": "maps are sampled at the phase that a small network chooses (LPS)",
        "norm_preserving": "maps are filtered and sampled, then scaled back to the norm they had",
    },
    "upsampler": {
        "transposed": "transposed convolutions enlarge the maps",
        "bilinear": "maps are enlarged by bilinear interpolation",
        "polyphase": "values are written back at the phase that they were sampled at, with zeros between",
        "ideal": "maps are enlarged by ideal interpolation",
    },
    "activation": {
        "identity": "none",
        "gelu": "GELU",
        "relu": "ReLU",
        "relu6": "ReLU6",
        "polynomial": "a learned polynomial for each channel",
        "up_polynomial": "a learned polynomial for each channel, on a finer grid",
        "lowpass_polynomial": "a learned quadratic for each channel; one factor of its square is low-passed",
        "up_self_gate": "the product of each map with a learned mixture of the maps, on a finer grid",
        "gate": "the product of two maps",
        "up_gate": "the product of two maps, on a finer grid",
        "lowpass_gate": "the product of two maps, one of them low-passed",
    },
    "norm": {
        "channel": "layer norm over the channels of each pixel",
        "spatial": "layer norm with one variance for each image",
        "batch": "batch norm",
        "instance": "instance norm",
        "group": "group norm",
    },
    "stem": {
        "image": "a 7 x 7 convolution and a max pool, both sampled by 2",
        "deep": "three 3 x 3 convolutions and a max pool",
        "small": "a 3 x 3 convolution at full resolution",
    },
    "shortcut": {
        "projection": "a 1 x 1 convolution where the shape changes",
        "zero_padded": "the map is sampled where the shape changes, and channels of zeros are added",
    },
    "padding": {
        "CIRCULAR": "a map continues with its opposite edge",
        "ZERO": "a map continues with zeros",
        "REFLECT": "a map continues with its mirror image",
        "REPLICATE": "a map continues with the value at its edge",
    },
}


def readme(
    name: str, card: ModelCard, module: nn.Module, variables: PyTree, results: Results, licence: str
) -> str:
    """The whole page.

    Args:
      name: the title, e.g. that of the directory.
      card, module, variables: as `load_model` gives them.
      results: of these weights, as `stored_results` finds them.
      licence: for the YAML, as the hub calls it; "" for none.
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
    """What is said of the networks of a task: the hub's words, and what they are, make and are used for."""

    pipeline: str
    metric: str
    network: str
    makes: str
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
        *("image-to-image", "psnr", "A network that makes images from images"),
        "maps of the same size, {} of them, normalised as the images are",
        "",
    ),
}


def _header(licence: str, told: _Told) -> str:
    # What JSON writes is YAML, whatever the text holds.
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
        f"From images of {side} x {side} pixels and {card.channels} channel{plural} it makes "
        f"{told.makes.format(len(card.outputs()))}; `config.json` has their names. The weights come from "
        f"`{card.origin}`{trained}."
    )


def _network(card: ModelCard, module: nn.Module) -> str:
    options = "".join(f", {option}={value!r}" for option, value in card.options.items())
    network = module.network if isinstance(module, Adapted) else module
    rows = [["part", "of this network", "in words"]]
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
            f"It is transformed by `{LIBRARY}.shift_invariant` with `{how}`: every strided operation runs at "
            "stride 1, and its result is sampled behind the non-linearity that follows."
        )
    return "\n\n".join(text)


def _named(kind: str, part: Any) -> tuple[str, Mapping[str, Any]]:
    """The name of a part, and the fields it is given with."""
    if isinstance(part, str):
        return part, {}
    module, fields = (part.module, dict(part.fields)) if isinstance(part, Factory) else (part, {})
    return next((name for name, known in PARTS[kind].items() if known is module), repr(module)), fields


def _listed(fields: Mapping[str, Any]) -> str:
    """Fields of a part in words, parts within parts by name."""
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

        # Or the path of a directory with these files.
        card, module, variables = {LIBRARY}.load_pretrained("hf://OWNER/NAME")
        {result} = jax.jit(module.apply)(variables, images)  # float [N, {side}, {side}, {card.channels}]
        {told.use}
        ```

        `python eval.py --checkpoint=hf://OWNER/NAME --config=configs/....py` measures it on images of yours;
        `python train.py --config.init_from=hf://OWNER/NAME ...` trains on from it.
    """)


def _images(card: ModelCard) -> str:
    size = card.preparation()["image_size"]
    square = f"{size} x {size} pixels ({card.interpolation}, antialiased)"
    lines = ["Turn the image upright by its EXIF orientation."] if card.exif else []
    if is_warped(size, card.eval_view):
        lines.append(f"Resize the whole image to {square}; its aspect ratio is given up.")
    else:
        shorter = int(size / card.eval_crop_ratio)
        lines.append(
            f"Resize the shorter side to {shorter} pixels ({card.interpolation}, antialiased) and take the "
            f"centre of {size} x {size}. An image of just this size stays as it is."
        )
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (card.mean, card.std))
    lines.append(f"With values from 0 to 1, subtract {mean} and divide by {std} (a number for each channel).")
    if card.zero_pad:
        lines.append(f"Put {card.zero_pad} pixels of zeros around it.")
    steps = "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))
    return f"`preprocessor_config.json` says how they are prepared, and `eval.py` does it:\n\n{steps}"


def _results(results: Results) -> str:
    told = ["Measured, of just these weights; nothing more is promised.", format_markdown(results)]
    facts = {"data": _data(results), "chosen as": results.get("chosen_as", "")}
    facts |= {name: results.get(name, "") for name in ("seed", "command", "time", "machine", "device")}
    facts["versions"] = ", ".join(
        f"{name} {results[name]}" for name in (LIBRARY, "jax", "python") if name in results
    )
    told.append("How it was measured:")
    told.append("\n".join(f"- {name}: {value}" for name, value in facts.items() if value != ""))
    return "\n\n".join(told)


def _data(results: Results) -> str:
    """The images of the results, without the directories of the machine that they were on."""
    data = results.get("data")
    if data is None:
        return ""
    where = " ".join(filter(None, (data["source"], data["name"], Path(data["path"]).name)))
    if results.get("images_of") == "validation":
        return f"{where}, held out of the training split {data['train_split']!r}"
    limited = ", evenly spread (data.eval_limit)" if data["eval_limit"] else ""
    return f"{where}, split {data['eval_split']!r}, {results['images']} images{limited}"
