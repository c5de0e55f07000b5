"""Operations that keep their names in a traced program (jaxpr).

A reader of the jaxpr finds "ideal filter" instead of matrix products. Each operation is a nested `jax.jit`.
Its name states the operation and the numbers that cannot be read from shapes, for example
`"aliasfree_jax__ideal_resample__passed_7_5__zero_offset_1_1"`. XLA inlines the call, so the compiled
program does not change.
"""

import functools
import re
from collections.abc import Callable, Hashable

import jax
import numpy as np

from aliasfree_jax.ops.choices import Choices, choices

PREFIX = "aliasfree_jax"
_FIELD = re.compile("([a-z]+(?:_[a-z]+)*)((?:_[0-9]+)+)")


def spell(name: str, **numbers: tuple[int, ...]) -> str:
    """Returns the name of an operation in a program; `read` is the inverse.

    Args:
      name: name of the operation, in lower-case words joined by underscores.
      numbers: non-negative integers that a reader of the program needs.
    """
    fields = ("_".join([key, *map(str, values)]) for key, values in numbers.items())
    return "__".join([PREFIX, name, *fields])


def read(name: str) -> tuple[str, dict[str, tuple[int, ...]]] | None:
    """Parses the name of a `jit` equation: operation and numbers, or None for foreign names."""
    prefix, *rest = name.split("__")
    if prefix != PREFIX or not rest:
        return None
    fields = [_FIELD.fullmatch(field) for field in rest[1:]]
    numbers = {field[1]: tuple(map(int, field[2].split("_")[1:])) for field in fields if field}
    return (rest[0], numbers) if len(numbers) == len(rest) - 1 else None


def operation(
    name: str, function: Callable[..., jax.Array], *arrays: jax.Array | np.ndarray, **static: Hashable
) -> jax.Array:
    """Calls `function(*arrays, **static)` as one named operation of the program.

    Checks that raise errors belong before the call. Values that change between eager calls, such as
    matrices, must be passed as arrays, because each new value of `static` is compiled again.

    Args:
      name: result of `spell`.
      function: a module-level function. A new function object for every call would compile every time.
    """
    return _compiled(name, function, tuple(static.items()), choices())(*arrays)


@functools.lru_cache(maxsize=1024)
def _compiled(
    name: str, function: Callable[..., jax.Array], static: tuple[tuple[str, Hashable], ...], _: Choices
) -> Callable[..., jax.Array]:
    """Caches one `jit` per set of equal arguments.

    The backend's choices are part of the key because `function` reads them when traced.
    """

    def run(*arrays: jax.Array) -> jax.Array:
        return function(*arrays, **dict(static))

    run.__name__ = run.__qualname__ = name
    return jax.jit(run)
