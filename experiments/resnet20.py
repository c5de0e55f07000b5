"""ResNet-20 for CIFAR-10 in plain Flax. It uses nothing of this package."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp


class Block(nn.Module):
    """Two convolutions, and a shortcut without parameters (He et al. 2016, option A)."""

    features: int
    strides: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps `[N, H, W, C]` to `[N, H / strides, W / strides, features]`."""
        conv = functools.partial(nn.Conv, self.features, (3, 3), padding=1, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        y = nn.relu(norm(name="bn1")(conv(strides=self.strides, name="conv1")(x)))
        y = norm(name="bn2")(conv(name="conv2")(y))
        if self.strides > 1:
            added = (self.features - x.shape[-1]) // 2
            x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (added, added)))
        return nn.relu(x + y)


class ResNet20(nn.Module):
    """ResNet-20 (He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2)."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images `[N, H, W, 3]` to logits `[N, 10]`."""
        x = nn.Conv(16, (3, 3), padding=1, use_bias=False, name="conv1")(images)
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name="bn1")
        x = nn.relu(norm(x))
        for stage, features in enumerate((16, 32, 64), 1):
            for block in range(3):
                strides = 2 if stage > 1 and block == 0 else 1
                x = Block(features, strides, name=f"layer{stage}_{block}")(x, train)
        return nn.Dense(10, name="linear")(x.mean((1, 2)))
