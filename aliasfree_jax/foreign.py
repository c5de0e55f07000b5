"""The network that a name stands for: this package's own or others', as it is written or transformed.

A reference is my_file.py:make_network or my_package.my_file:make_network: a function that returns a Linen
module. `build` gives it the call of this package's networks, so that training, evaluation and checkpoints see
one kind of network.
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
    """The function itself."""
    return apply


class Adapted(nn.Module):
    """A Linen module, perhaps transformed, with the call of this package's networks.

    Variables and random streams are those of the module itself, with its names.

    Attributes:
      network: the module.
      transform: of its `apply`, whose argument 1 is the images; `as_written` for none.
    """

    network: nn.Module
    transform: Callable[[Apply], Apply] = as_written

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, **more: Any) -> Any:
        """What the module gives for images [N, H, W, C]; `more` are further arguments of its call."""
        assert self.scope is not None
        # A program of its own: as a submodule its names would begin with "network".
        network, _ = self.network.unbind()
        how = {**mode(network, train=train), **more, "mutable": self.scope.mutable}
        how["capture_intermediates"] = self.is_mutable_collection("intermediates")
        rngs = {name: stream.as_jax_rng() for name, stream in self.scope.rngs.items()}
        if self.is_initializing():  # as written: the shapes of parameters are the same
            result, changed = network.init_with_output(rngs, images, **how)
        else:
            apply = self.transform(functools.partial(network.apply, **how))
            result = apply(self.variables, images, rngs=rngs)
            result, changed = result if self.scope.mutable else (result, {})
        for collection, values in changed.items():
            for name, value in values.items():
                self.put_variable(collection, name, value)
        return result


def file_sha256(model: str) -> str:
    """The SHA-256 of the file that a reference names; "" for this package's own networks.

    Raises:
      ConfigError: there is no such file.
    """
    return fingerprint(source_file(model)) if is_reference(model) else ""


def check_unchanged(model: str, sha256: str) -> None:
    """Refuses a reference whose file is no longer the one with which the network was trained.

    Raises:
      CheckpointError: it is missing, or has changed.
    """
    again = (
        "Put the file back as it was; or train on from these weights with another file, as another run: "
        "another --workdir with --config.init_from=RUN, where RUN is the directory of the weights."
    )
    try:
        now = file_sha256(model)
    except ConfigError as error:
        raise CheckpointError(f"the network was made by {model}, but {error} {again}") from error
    if now != sha256:
        raise CheckpointError(
            f"{source_file(model)} has changed since the network was trained (SHA-256 {sha256[:12]}..., now "
            f"{now[:12]}...), so its weights may compute something else. {again}"
        )


def _linen_module(model: str, options: Mapping[str, Any]) -> nn.Module:
    """What the function of a reference makes.

    Raises:
      ConfigError: no function there, one that takes other arguments, or no Linen module.
    """
    given = dict(options)
    if not takes(function_of(model, EXPECTED), "num_classes"):
        given.pop("num_classes", None)
    _, network = made_by(model, EXPECTED, **given)
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{model} returned {type(network).__name__}: expected {EXPECTED} alone. Training draws its "
            "variables; weights to start from are passed by --config.init_from."
        )
    return network


def transform_of(options: Mapping[str, Any]) -> Callable[[Apply], Apply]:
    """`shift_invariant` with options as JSON has them.

    Raises:
      ConfigError: one of them has a wrong value.
    """
    how = dict(options)
    match options.get("activations"):
        case None | "polynomial":
            pass
        case {"oversample": int(factor), **others} if not others:
            how["activations"] = Oversample(factor)
        case other:
            raise ConfigError(
                'model.shift_invariant.activations is None, "polynomial" or {"oversample": 2}, got '
                f"{other!r}."
            )
    transform: Callable[[Apply], Apply] = functools.partial(shift_invariant, argnums=1, **how)
    transform(as_written)  # tells what is wrong with the options now, not at the first call
    return transform


def build(model: str, options: Mapping[str, Any], transformation: Mapping[str, Any]) -> nn.Module:
    """The network, with `apply(variables, images, train=...)`.

    Args:
      model: name for `create_model`, or a reference.
      options: keyword arguments of `create_model`, or of the function. It need not take num_classes.
      transformation: keyword arguments of `shift_invariant`, sampler, padding and activations, the latter as
        None, "polynomial" or {"oversample": k}; {} for the network as it is written.

    Raises:
      ConfigError: unknown network, function or option.
    """
    network = _linen_module(model, options) if is_reference(model) else create_model(model, **options)
    if transformation:
        return Adapted(network, transform_of(transformation))
    return Adapted(network) if is_reference(model) else network
