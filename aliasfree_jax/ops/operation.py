"""Operations that keep their name in the program: a reader of the jaxpr finds an ideal filter, not products.

Each is a nested `jax.jit`. Its name tells the operation, and those numbers that no shape tells: for example
"aliasfree_jax__ideal_resample__passed_7_5__zero_offset_1_1". XLA inlines the call, so that what is compiled
stays the same.
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
    """The name of an operation as it stands in a program; `read` undoes it.

    Args:
      name: of the operation, in lower-case words with underscores between them.
      numbers: integers of at least 0, which the reader of the program needs to know.
    """
    fields = ("_".join([key, *map(str, values)]) for key, values in numbers.items())
    return "__".join([PREFIX, name, *fields])


def read(name: str) -> tuple[str, dict[str, tuple[int, ...]]] | None:
    """Operation and numbers of the name of a `jit` equation; None if it is no operation of this package."""
    prefix, *rest = name.split("__")
    if prefix != PREFIX or not rest:
        return None
    fields = [_FIELD.fullmatch(field) for field in rest[1:]]
    numbers = {field[1]: tuple(map(int, field[2].split("_")[1:])) for field in fields if field}
    return (rest[0], numbers) if len(numbers) == len(rest) - 1 else None


def operation(
    name: str, function: Callable[..., jax.Array], *arrays: jax.Array | np.ndarray, **static: Hashable
) -> jax.Array:
    """`function(*arrays, **static)` as one operation of the program.

    Checks that raise errors belong before the call. What differs from one eager call to the next, such as a
    matrix, belongs to the arrays: each new value of `static` is compiled.

    Args:
      name: from `spell`.
      function: of a module, not made anew for each call.
    """
    return _compiled(name, function, tuple(static.items()), choices())(*arrays)


@functools.lru_cache(maxsize=1024)
def _compiled(
    name: str, function: Callable[..., jax.Array], static: tuple[tuple[str, Hashable], ...], _: Choices
) -> Callable[..., jax.Array]:
    """One `jit` for equal arguments; the backend's choices count, since `function` reads them when traced."""

    def run(*arrays: jax.Array) -> jax.Array:
        return function(*arrays, **dict(static))

    run.__name__ = run.__qualname__ = name
    return jax.jit(run)
