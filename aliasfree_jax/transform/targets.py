"""Turns the networks named on a command line into functions of variables and images.

`make_network()` has no arguments. It returns one of these: a `flax.linen.Module`, `(module, variables)`,
`(module, variables, {"train": False})` with keyword arguments of its call, a function of images
`[N, H, W, C]`, or `(function, variables)` for `function(variables, images)`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from aliasfree_jax.commands import call_arguments, made_by, mode, running
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.files import local_path
from aliasfree_jax.models.registry import create_model, list_models

EXPECTED = "a flax.linen.Module, (module, variables), a function of images or (function, variables)"


@dataclasses.dataclass(frozen=True)
class Target:
    """A network.

    Attributes:
      name: Name for tables and messages.
      call: Function of variables and images.
      init: Returns the variables, given images.
      image: Rows, columns and channels of the images that it is made for, if known.
    """

    name: str
    call: Callable[[Any, Any], Any]
    init: Callable[[Any], Any]
    image: tuple[int, ...] | None = None

    def try_on(self, sides: Sequence[int]) -> None:
        """Traces the network on an image of these rows, columns and channels.

        Raises:
          ShapeError: The network does not run on such an image.
        """
        images = jax.ShapeDtypeStruct((1, *sides), "float32")
        with running(self.name, sides):
            jax.eval_shape(lambda x: self.call(self.init(x), x), images)


def target_of(text: str) -> Target:
    """The network named by "my_file.py:make_network" or by its name in this package.

    Raises:
      ConfigError: The file, function or network does not exist, or the function returns something else.
    """
    if text in list_models():
        return of_module(text, create_model(text), None, {"train": False})
    if ":" not in text:
        raise ConfigError(
            f"{text!r} is neither my_file.py:make_network nor a network of this package. `python -m "
            "aliasfree_jax models` lists the networks."
        )
    name, made = made_by(str(local_path(text)), EXPECTED)
    parts = made if isinstance(made, tuple) else (made,)
    network, variables, arguments = (*parts, None, None)[:3]
    if not callable(network):
        raise ConfigError(f"{text}() returned {type(network).__name__}: expected {EXPECTED}.")
    options = call_arguments(text, arguments)
    if not isinstance(network, nn.Module):
        call = network if len(parts) > 1 else lambda _, x: network(x)
        return Target(name, call, lambda _: variables)
    if not isinstance(variables or {}, Mapping):
        raise ConfigError(
            f"{text}() returned variables of type {type(variables).__name__}: expected the result of "
            "module.init."
        )
    return of_module(name, network, variables, mode(network, train=False) if options is None else options)


def of_module(name: str, module: nn.Module, variables: Any, options: Mapping[str, Any]) -> Target:
    """A Linen module called with `options`. If `variables` is None, they are initialised."""

    def init(images: Any) -> Any:
        return module.init(jax.random.key(0), images, **options) if variables is None else variables

    return Target(name, lambda v, x: module.apply(v, x, **options), init)
