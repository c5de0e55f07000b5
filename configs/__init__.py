"""Training configurations: `python train.py --config=configs/<name>.py`.

Here: how those that offer a choice read the words behind the colon, `configs/<name>.py:word,word`.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from aliasfree_jax.errors import ConfigError

Words = Mapping[str, Any]
"""Words, in any case, and what each means."""


def choices(argument: str, slots: Mapping[str, Words], grammar: str) -> dict[str, Any]:
    """What the words of `argument` mean, by slot.

    Commas separate them. Names such as ResNet50_LPS_LPF3_zero are taken apart where the whole is no word.

    Args:
      slots: each takes one word of its own at most.
      grammar: for the message, what can be written.

    Raises:
      ConfigError: an unknown word, with the near ones; two for one slot.
    """
    meanings = {word.lower(): (slot, value) for slot, words in slots.items() for word, value in words.items()}
    spelling = {word.lower(): word for words in slots.values() for word in words}
    found: dict[str, Any] = {}
    said: dict[str, str] = {}
    for word in _taken_apart(argument, meanings):
        if word not in meanings:
            near = [spelling[name] for name in difflib.get_close_matches(word, meanings, n=3)]
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ConfigError(f"unknown word {word!r} behind the colon.{hint} Expected {grammar}")
        slot, value = meanings[word]
        if slot in found:
            raise ConfigError(f"{said[slot]!r} and {word!r} are two {slot}s, choose one. Expected {grammar}")
        found[slot], said[slot] = value, word
    return found


def _taken_apart(argument: str, meanings: Words) -> list[str]:
    words: list[str] = []
    for word in argument.lower().split(","):
        parts = re.split("_", word)
        words += [word] if word in meanings or not set(parts) <= set(meanings) else parts
    return words


SIZES = range(1, 8)
"""Taps of the originals' blur filters."""
