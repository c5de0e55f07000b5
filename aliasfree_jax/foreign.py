"""Builds the network of a name or a reference, and transforms it if the configuration asks for it.

A reference is my_file.py:make_network or my_package.my_file:make_network. It names a function that returns a
Linen module. `build` wraps this module so that it is called like this package's networks. Training,
evaluation and checkpoints then handle only one kind of network.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax

from aliasfree_jax.commands import made_by, mode, takes
from aliasfree_jax.errors import CheckpointError, ConfigError
from aliasfree_jax.models.registry import create_model
from aliasfree_jax.references import fingerprint, function_of, is_reference, source_file
from aliasfree_jax.transform import Oversample, shift_invariant

Apply = Callable[..., Any]
EXPECTED = "a flax.linen.Module"


def as_written(apply: Apply) -> Apply:
    """Returns the function unchanged."""
    return apply


class Adapted(nn.Module):
    """Wraps a user's Linen module so that it is called like this package's networks.

    The variables and random streams keep the names that they have in the module.

    Attributes:
      network: The module.
      transform: Transformation of the module's `apply`, whose argument 1 is the images; `as_written`: none.
    """

    network: nn.Module
    transform: Callable[[Apply], Apply] = as_written

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, **more: Any) -> Any:
        """Applies the module to images `[N, H, W, C]`.

        Args:
          images: The input.
          train: Whether the module trains.
          **more: Further arguments of the module's call.

        Returns:
          The module's output.
        """
        assert self.scope is not None
        # The module is applied separately. As a submodule, its variables would have names with "network".
        network, _ = self.network.unbind()
        how = {**mode(network, train=train), **more, "mutable": self.scope.mutable}
        how["capture_intermediates"] = self.is_mutable_collection("intermediates")
        rngs = {name: stream.as_jax_rng() for name, stream in self.scope.rngs.items()}
        if self.is_initializing():  # not transformed: the shapes of the parameters are the same
            result, changed = network.init_with_output(rngs, images, **how)
        else:
            apply = self.transform(functools.partial(network.apply, **how))
            result = apply(self.variables, images, rngs=rngs)
            result, changed = (result, {}) if self.scope.mutable is False else result
        for collection, values in changed.items():
            for name, value in values.items():
                self.put_variable(collection, name, value)
        return result


def file_sha256(model: str) -> str:
    """SHA-256 of the file that a reference names; "" for this package's networks.

    Raises:
      ConfigError: The file does not exist.
    """
    return fingerprint(source_file(model)) if is_reference(model) else ""


def check_unchanged(model: str, sha256: str) -> None:
    """Checks that the file of a reference has not changed since the network was trained.

    Args:
      model: Name of a network, or a reference.
      sha256: SHA-256 of the file at the time of training.

    Raises:
      CheckpointError: The file is missing or has changed.
    """
    again = (
        "Put the file back as it was; or start another run from these weights with the new file: pass "
        "another --workdir with --config.init_from=RUN, where RUN is the directory of the weights."
    )
    try:
        now = file_sha256(model)
    except ConfigError as error:
        raise CheckpointError(f"the network was made by {model}, but {error} {again}") from error
    if now != sha256:
        raise CheckpointError(
            f"{source_file(model)} has changed since the network was trained (SHA-256 {sha256[:12]}..., now "
            f"{now[:12]}...), so the network may compute something else with these weights. {again}"
        )


def _linen_module(model: str, options: Mapping[str, Any]) -> nn.Module:
    """Calls the function of a reference and checks that it returns a Linen module.

    Raises:
      ConfigError: The function does not exist, has other arguments, or does not return a Linen module.
    """
    given = dict(options)
    if not takes(function_of(model, EXPECTED), "num_classes"):
        given.pop("num_classes", None)
    _, network = made_by(model, EXPECTED, **given)
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{model} returned {type(network).__name__}: expected {EXPECTED} alone. Training initializes its "
            "variables. To start from other weights, pass --config.init_from."
        )
    return network


def transform_of(options: Mapping[str, Any]) -> Callable[[Apply], Apply]:
    """Returns `shift_invariant` with these options, which come from JSON.

    Raises:
      ConfigError: An option has a wrong value.
    """
    how = dict(options)
    match options.get("activations"):
        case None | "polynomial":
            pass
        case {"oversample": int(factor), **others} if not others:
            how["activations"] = Oversample(factor)
        case other:
            raise ConfigError(
                'model.shift_invariant.activations must be None, "polynomial" or {"oversample": 2}, got '
                f"{other!r}."
            )
    transform: Callable[[Apply], Apply] = functools.partial(shift_invariant, argnums=1, **how)
    transform(as_written)  # reports wrong options now, not at the first call
    return transform


def build(model: str, options: Mapping[str, Any], transformation: Mapping[str, Any]) -> nn.Module:
    """Builds a network with `apply(variables, images, train=...)`.

    Args:
      model: Name for `create_model`, or a reference.
      options: Keyword arguments of `create_model`, or of the function. The function may lack num_classes.
      transformation: Keyword arguments of `shift_invariant`: sampler, padding and activations. Activations
        are None, "polynomial" or {"oversample": k}. {}: the network is not transformed.

    Returns:
      The Linen module.

    Raises:
      ConfigError: The network, the function or an option is unknown.
    """
    network = _linen_module(model, options) if is_reference(model) else create_model(model, **options)
    if transformation:
        return Adapted(network, transform_of(transformation))
    return Adapted(network) if is_reference(model) else network
