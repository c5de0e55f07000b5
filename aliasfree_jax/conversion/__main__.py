"""Converts a PyTorch file into a checkpoint that eval.py and train.py accept.

python -m aliasfree_jax.conversion convnext_tiny_afc.pth converted/convnext_afc_tiny

The network is recognised from the file; --model and --options override that. Nothing in the file is
executed, and PyTorch is not needed.
"""

import argparse
import json
import sys
from typing import Any

import jax

from aliasfree_jax.checkpoint import save_model
from aliasfree_jax.conversion.originals import load_pth
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.errors import ConversionError, command


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
    parser.add_argument("file", help="the .pth file")
    parser.add_argument("directory", help="where to write the checkpoint; must not exist")
    parser.add_argument("--source", help="original code base, e.g. alias_free_convnets")
    parser.add_argument("--model", help="network of that code base, e.g. convnext_afc")
    parser.add_argument("--options", help="arguments of its constructor as JSON")
    parser.add_argument(
        "--key", help="entry of a training checkpoint, e.g. model (default: model_ema if present)"
    )
    parser.add_argument("--image_size", type=int, help="pixels (default 224; 32 for CIFAR-10)")
    return parser


@command
def main(arguments: list[str]) -> None:
    """Runs the command."""
    args = _parser().parse_args(arguments)
    try:
        card, _, variables = load_pth(
            args.file,
            source=args.source,
            model=args.model,
            options=_options(args.options),
            key=args.key,
            image_size=args.image_size,
            tell=lambda note: print(f"note: {note}"),
        )
    except UndecidedError as error:
        raise error.for_conversion() from error
    written = save_model(args.directory, card, variables)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    print(f"{card.origin}: {card.model} {json.dumps(card.options)}")
    print(f"wrote {count:,} parameters to {written}")
    config = "cifar10_resnet" if card.image_size == 32 else "convnext_afc"  # for its data, not its network
    print(f"evaluate them with: python eval.py --checkpoint={written} --config=configs/{config}.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
