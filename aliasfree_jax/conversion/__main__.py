"""Converts an original's file into a checkpoint that eval.py and train.py accept, or a run into such a file.

python -m aliasfree_jax.conversion convnext_tiny_afc.pth converted/convnext_afc_tiny
python -m aliasfree_jax.conversion --to=antialiased-cnns runs/resnet50_lpf4 weights.safetensors

The network is recognised from the file (of torch.save, or .safetensors); --model and --options override
that. Nothing in the file is executed, and PyTorch is not needed. With --to, the file gets the keys of
that code base, whose programs load it strictly; its ending chooses the format: .safetensors, .pth (the
state dict) or .pth.tar (an entry "state_dict", as --save_weights of the originals).
"""

import argparse
import json
import sys
from typing import Any

import jax

from aliasfree_jax.checkpoint import save_model
from aliasfree_jax.conversion.inverse import SOURCES
from aliasfree_jax.conversion.originals import load_pth
from aliasfree_jax.conversion.to_files import write_original
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.data.views import described
from aliasfree_jax.errors import ConversionError, command
from aliasfree_jax.files import local_path

FOR_FILES = ("source", "model", "options", "key", "image_size")


def _options(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConversionError(f"--options is not JSON ({error}): {text}") from error
    if not isinstance(options, dict):
        raise ConversionError(f"--options must be a JSON object of constructor arguments, got {text}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aliasfree_jax.conversion",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "input",
        type=local_path,
        help="the original's file; with --to a run, its best, a step, a converted directory",
    )
    parser.add_argument(
        "output", type=local_path, help="where to write the checkpoint, with --to the file; must not exist"
    )
    parser.add_argument(
        "--to", metavar="SOURCE", help=f"write a file of this code base: {', '.join(SOURCES)}"
    )
    parser.add_argument("--source", help="original code base, e.g. alias_free_convnets")
    parser.add_argument("--model", help="network of that code base, e.g. convnext_afc")
    parser.add_argument("--options", help="arguments of its constructor as JSON")
    parser.add_argument(
        "--key",
        help="entry of a training checkpoint, e.g. model (default: averaged weights, if any)",
    )
    parser.add_argument("--image_size", type=int, help="pixels (default 224; 32 for CIFAR-10)")
    return parser


def _to_original(args: argparse.Namespace) -> None:
    given = [name for name in FOR_FILES if getattr(args, name) is not None]
    if given:
        raise ConversionError(f"--{given[0]} is for reading a file; with --to, the run says what it holds.")
    model, options, count = write_original(args.to, args.input, args.output)
    print(f"{args.to}: {model} {json.dumps(options)}")
    print(f"wrote {count:,} values to {args.output}")


@command
def main(arguments: list[str]) -> None:
    """Runs the command."""
    args = _parser().parse_args(arguments)
    if args.to is not None:
        return _to_original(args)
    try:
        card, _, variables = load_pth(
            args.input,
            source=args.source,
            model=args.model,
            options=_options(args.options),
            key=args.key,
            image_size=args.image_size,
            tell=lambda note: print(f"note: {note}"),
        )
    except UndecidedError as error:
        raise error.for_conversion() from error
    written = save_model(args.output, card, variables)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    print(f"{card.origin}: {card.model} {json.dumps(card.options)}")
    print(f"wrote {count:,} parameters to {written}")
    config = "cifar10_resnet" if card.image_size == 32 else "convnext_afc"  # for its data, not its network
    prepared = described(card.preparation())
    print(f"evaluate them at {prepared}: python eval.py --checkpoint={written} --config=configs/{config}.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
