"""Samplers that adapt to the map: one polyphase component per image, or one filter per position.

The component is chosen by its norm (APS) or by a small network (LPS). The choice depends only on the set of
components. An integer circular shift of the map permutes this set. So sampling commutes with every such
shift if the stride divides the sides of the map.
"""

from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.layer import ModuleFactory, accurate_dtype, kaiming_normal_fan_out, part
from aliasfree_jax.layers.normalization import BatchNorm
from aliasfree_jax.layers.phase_logits import ConvLogits
from aliasfree_jax.layers.sampling import (
    FilteredSampler,
    Phase,
    Sampler,
    SamplerFactory,
    Subsample,
    Temperature,
    steps_of,
    warn_uneven,
)
from aliasfree_jax.ops.blurring import adaptive_blur
from aliasfree_jax.ops.padding import Padding
from aliasfree_jax.ops.polyphase import (
    Criterion,
    TieOrder,
    best_phase,
    component_scores,
    pad_to_multiple,
    polyphase_components,
    select_component,
)
from aliasfree_jax.ops.shapes import Pair, pair

SelectOn = Literal["filtered", "raw"]
Evaluation = Literal["hard", "convex", "noisy"]


class ComponentSampler(Sampler):
    """Base class: filters, splits the map into polyphase components and keeps the one that `choose` returns.

    Strides are split into prime factors, with one choice per factor.

    Attributes:
      inner: sampler whose filter runs before each split. `Subsample` does not filter.
      select_on: whether the choice uses the "filtered" components (APS for ImageNet, LPS) or the "raw" ones
        (APS for CIFAR, `selection_noantialias` of LPS).
      odd_padding: padding of sides that are not multiples of the stride.
    """

    inner: SamplerFactory = part(Subsample)
    select_on: SelectOn = "filtered"
    odd_padding: Padding = "CIRCULAR"

    def choose(
        self,
        components: jax.Array,
        step: int,
        factors: tuple[int, int],
        train: bool,
        temperature: Temperature,
    ) -> jax.Array:
        """Returns the phase `[N]` or weights `[N, K]` for the components `[N, K, h, w, C]` of one step."""
        raise NotImplementedError

    @nn.compact
    def with_phase(
        self, x: jax.Array, phase: Phase = None, *, train: bool = False, temperature: Temperature = 1.0
    ) -> tuple[jax.Array, Phase]:
        """Returns the sampled map and the phases of all steps; see `Sampler.with_phase`.

        Raises:
          ConfigError: unknown `select_on`, or another unknown word in a field.
          ShapeError: the map cannot be sampled.
        """
        x = self.checked(x)
        if self.select_on not in get_args(SelectOn):
            raise ConfigError(unknown("select_on", self.select_on, get_args(SelectOn)))
        chosen = []
        warn_uneven(x, pair(self.strides, "strides"), "")
        for step, factors in enumerate(steps_of(self.strides)):
            inner: Any = self.inner(strides=factors, **self.numerics, name=f"inner{step}")
            components = self._components(inner.filter(x, train=train), factors)
            if phase is None:
                seen = components if self.select_on == "filtered" else self._components(x, factors)
                index = self.choose(seen, step, factors, train, temperature)
            else:
                index = phase[step]
            x = select_component(components, index)
            chosen.append(index)
        return x, tuple(chosen) or None

    def _components(self, x: jax.Array, factors: tuple[int, int]) -> jax.Array:
        return polyphase_components(pad_to_multiple(x, factors, self.odd_padding), factors)


class AdaptivePolyphase(ComponentSampler):
    """Adaptive polyphase sampling (APS): keeps the polyphase component with the highest score.

    It is exact for every integer circular shift if the strides divide the sides of the map. No gradient
    flows through the choice.

    Attributes:
      criterion: the score; see `ops.component_scores`. After a max pool at stride 1 the components tie in
        `"l_infty"` and `"non_abs_max"`: the largest value fills a window, which contains all phases. These
        criteria are then not exact, as in the original.
      tie_order: which of several equal scores wins; see `ops.best_phase`. "rows" is the variant in the code
        of LPS (`max_2_norm`).
      strides: sampling strides.
      inner: sampler whose filter runs before the components are split. `Subsample` does not filter.
      select_on: whether the choice uses the "filtered" components or the "raw" ones.
      odd_padding: padding of sides that are not multiples of the stride.

    Source: Chaman & Dokmanic 2021 (arXiv 2011.14214).
    """

    criterion: Criterion = "l2"
    tie_order: TieOrder = "columns"

    def choose(
        self,
        components: jax.Array,
        step: int,
        factors: tuple[int, int],
        train: bool,
        temperature: Temperature,
    ) -> jax.Array:
        """Returns the phase `[N]` of the highest score."""
        scores = component_scores(jax.lax.stop_gradient(components), self.criterion)
        return best_phase(scores, factors, self.tie_order)


class LearnedPolyphase(ComponentSampler):
    """Learnable polyphase sampling (LPS): a small network scores the polyphase components.

    In training the output is a mixture of all components with the weights softmax((logits + g) / t). Here g
    is Gumbel noise from the rng stream "gumbel", and t is the temperature. In "hard" evaluation, the default,
    the output is the component with the largest logit. Only this choice commutes with shifts.

    Attributes:
      logits: module from components `[N, K, h, w, C]` to logits `[N, K]` (`ConvLogits` and others).
      noise: whether training adds noise. Without it the weights are softmax(logits / t) (`"train_convex"`).
      evaluation: "hard" for the best component, "convex" for the mixture without noise, "noisy" for the
        mixture with noise. Without a key for "gumbel", the noise is computed from the logits: it differs
        between images and is reproducible.
      evaluation_temperature: temperature of the mixtures in evaluation. None: the temperature of the call.
      strides: sampling strides.
      inner: sampler whose filter runs before the components are split. `Subsample` does not filter.
      select_on: whether the choice uses the "filtered" components or the "raw" ones.
      odd_padding: padding of sides that are not multiples of the stride.

    Source: Rojas-Gomez et al. 2022 (arXiv 2210.08001), section 3.
    """

    odd_padding: Padding = "ZERO"
    logits: ModuleFactory = part(ConvLogits)
    noise: bool = True
    evaluation: Evaluation = "hard"
    evaluation_temperature: float | None = None

    def choose(
        self,
        components: jax.Array,
        step: int,
        factors: tuple[int, int],
        train: bool,
        temperature: Temperature,
    ) -> jax.Array:
        """Returns weights `[N, K]` in training, and the phase `[N]` in "hard" evaluation."""
        if self.evaluation not in get_args(Evaluation):
            raise ConfigError(unknown("evaluation", self.evaluation, get_args(Evaluation)))
        network: Any = self.logits(**self.numerics, name=f"logits{step}")
        logits = network(components, train=train)
        if not train and self.evaluation == "hard":
            return best_phase(logits, factors, "rows")
        logits = logits.astype(accurate_dtype(logits.dtype))
        if self.noise if train else self.evaluation == "noisy":
            if train or self.has_rng("gumbel"):
                logits += jax.random.gumbel(self.make_rng("gumbel"), logits.shape, logits.dtype)
            else:
                logits += jax.vmap(_noise_from_logits)(logits)
        if not train and self.evaluation_temperature is not None:
            temperature = self.evaluation_temperature
        return jax.nn.softmax(logits / jnp.asarray(temperature, logits.dtype), axis=1)


def _noise_from_logits(logits: jax.Array) -> jax.Array:
    """Gumbel noise for the logits `[K]` of one image, with a key computed from these logits."""
    key = jax.random.key(0)
    # Only the leading digits make the key: the last ones depend on the size of the batch.
    for bits in jax.lax.bitcast_convert_type(logits.astype(jnp.bfloat16), jnp.uint16):
        key = jax.random.fold_in(key, bits)
    return jax.random.gumbel(key, logits.shape, logits.dtype)


class AdaptiveBlurPool(FilteredSampler):
    """Learns a blur filter for each position and group of channels, then samples (DDAC).

    A convolution, a batch norm and a softmax compute one filter per position and group. The softmax covers
    all groups together, as in the original. The weights of each group therefore sum to about 1 / groups.

    Attributes:
      strides: sampling strides.
      kernel_size: size of the filters, odd.
      groups: number of groups of channels that share a filter. It must divide the channels.
      padding: how the map continues beyond its border.

    Source: Zou et al. 2020 (arXiv 2008.09604), in the version of `learnable_polyphase_sampling`.
    """

    kernel_size: Pair = 3
    groups: int = 8
    padding: Padding = "CIRCULAR"

    @nn.compact
    def filter(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns the filtered map at full size; `train` uses and updates the batch statistics."""
        rows, columns = pair(self.kernel_size, "kernel_size")
        conv = Conv(
            self.groups * rows * columns,
            (rows, columns),
            padding=self.padding,
            use_bias=False,
            kernel_init=kaiming_normal_fan_out,
            **self.numerics,
            name="conv",
        )
        logits = BatchNorm(**self.numerics, name="norm")(conv(x), train=train)
        weights = jax.nn.softmax(logits.astype(accurate_dtype(x.dtype)), axis=-1).astype(x.dtype)
        return adaptive_blur(x, weights.reshape(*x.shape[:3], self.groups, rows, columns), self.padding)
