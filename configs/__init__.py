"""Training configurations: `python train.py --config=configs/<name>.py`.

Some configurations have variants: `configs/<name>.py:word,word`. This module parses the words after the
colon.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from aliasfree_jax.errors import ConfigError

Words = Mapping[str, Any]
"""Words (upper or lower case) with their meanings."""


def choices(argument: str, slots: Mapping[str, Words], grammar: str) -> dict[str, Any]:
    """Parses words that are separated by commas.

    A name such as ResNet50_LPS_LPF3_zero is split at its underscores if the whole name is not a word.

    Args:
      argument: The words.
      slots: The legal words of each slot. Each slot accepts at most one word.
      grammar: Description of the legal words, for messages.

    Returns:
      The meaning of the word in each slot that is used.

    Raises:
      ConfigError: A word is unknown, or two words belong to one slot.
    """
    meanings = {word.lower(): (slot, value) for slot, words in slots.items() for word, value in words.items()}
    spelling = {word.lower(): word for words in slots.values() for word in words}
    found: dict[str, Any] = {}
    said: dict[str, str] = {}
    for word in _taken_apart(argument, meanings):
        if word not in meanings:
            near = [spelling[name] for name in difflib.get_close_matches(word, meanings, n=3)]
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ConfigError(f"unknown word {word!r} after the colon.{hint} Expected {grammar}")
        slot, value = meanings[word]
        if slot in found:
            raise ConfigError(f"{said[slot]!r} and {word!r} are two {slot}s: choose one. Expected {grammar}")
        found[slot], said[slot] = value, word
    return found


def _taken_apart(argument: str, meanings: Words) -> list[str]:
    words: list[str] = []
    for word in argument.lower().split(","):
        parts = re.split("_", word)
        words += [word] if word in meanings or not set(parts) <= set(meanings) else parts
    return words


SIZES = range(1, 8)
"""Numbers of taps of the original blur filters."""
