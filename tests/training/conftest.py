"""Replaces the real networks and data by tiny ones, so that these tests test only training."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from aliasfree_jax import foreign
from aliasfree_jax.config import base_config
from aliasfree_jax.data import ProcessPart
from aliasfree_jax.errors import ShapeError
from aliasfree_jax.training import setup

SIZE = 8  # pixels
EXAMPLES = 24
CLASSES = ("a", "b", "c")


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs of the same network share their compiled programs, also in processes that tests start."""
    cache = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    if jax.config.jax_compilation_cache_dir:  # the caller has set a lasting cache
        yield
        return
    before = {name: getattr(jax.config, name) for name in cache}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cache.items():
            jax.config.update(name, value)
            patch.setenv(name.upper(), str(value))
        yield
    for name, value in before.items():
        jax.config.update(name, value)


class TinyNet(nn.Module):
    """Circular convolution, optional batch norm and drop path, mean, head."""

    num_classes: int = 3
    width: int = 4
    batch_norm: bool = True
    drop_path_rate: float = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        if images.shape[1] < 4:
            raise ShapeError(f"images of {images.shape[1]} pixels are too small.")
        x = nn.Conv(self.width, (3, 3), padding="CIRCULAR", name="conv")(images)
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        if train and self.drop_path_rate:
            kept = jax.random.bernoulli(
                self.make_rng("drop_path"), 1 - self.drop_path_rate, (x.shape[0], 1, 1, 1)
            )
            x = jnp.where(kept, x, 0.0)
        coefficients = self.param("coefficients", nn.initializers.constant(0.5), (self.width, 3))
        x = coefficients[:, 0] + coefficients[:, 1] * x + coefficients[:, 2] * x * x
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


def create_tiny(name: str, **options: Any) -> TinyNet:
    known = {k: v for k, v in options.items() if k not in ("precision", "remat")}
    return TinyNet(**{"width": 4 if name == "tiny" else 5} | known)


def make_batch(seed: Any, size: int, classes: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, size).astype(np.int32)
    image = rng.normal(size=(size, SIZE, SIZE, 1)).astype(np.float32) + label[:, None, None, None]
    return {"image": image, "label": label, "mask": np.ones(size, np.float32)}


class Batches:
    """Endless batches that depend only on seed and step, like the real ones."""

    def __init__(self, size: int, seed: int, step: int, skipped: int = 0):
        self.size, self.seed, self.at, self.skipped = size, seed, step, skipped
        self.first_skipped = ["x.png is no image"]
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        self.at += 1
        return make_batch((self.seed, self.at), self.size)


@pytest.fixture
def tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces only the networks."""
    monkeypatch.setattr(foreign, "create_model", create_tiny)


@pytest.fixture
def world(tiny_networks: None, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Replaces networks and data. Its attributes describe the data."""
    data_now = SimpleNamespace(opened=[], skipped=0, eval_classes=CLASSES, poison=None)

    def open_source(data: ConfigDict, train: bool, task: str) -> Any:
        data_now.opened.append(train)
        return type(
            "Source",
            (),
            {"class_names": CLASSES if train else data_now.eval_classes, "__len__": lambda _: EXAMPLES},
        )()

    def train_batches(
        source: Any, data: ConfigDict, *, batch_size: int, seed: int, start_step: int, part: ProcessPart
    ) -> Any:
        batches = Batches(batch_size, seed, start_step, data_now.skipped)
        if data_now.poison is None:
            return batches

        class Poisoned(Batches):
            def __next__(self) -> dict[str, np.ndarray]:
                batch = super().__next__()
                return batch | {"image": batch["image"] * (np.nan if self.at == data_now.poison else 1.0)}

        return Poisoned(batch_size, seed, start_step)

    def own_eval_batches(
        source: Any, data: ConfigDict, batch_size: int, skip: bool
    ) -> Iterator[dict[str, np.ndarray]]:
        batch = make_batch(99, batch_size)
        batch["mask"][-2:] = 0
        yield batch

    for stand_in in (open_source, train_batches, own_eval_batches):
        monkeypatch.setattr(setup, stand_in.__name__, stand_in)
    data_now.batch = lambda seed: make_batch(seed, 12)
    return data_now


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """The tiny network and its data, for tests without the loop."""
    return SimpleNamespace(Net=TinyNet, make_batch=make_batch, size=SIZE)


@pytest.fixture
def config() -> ConfigDict:
    """Two steps of 12 examples per epoch, with drop path, batch norm and averages."""
    config = base_config()
    config.model.name = "tiny"
    config.model.options = {"drop_path_rate": 0.3}
    config.data.image_size = SIZE
    config.data.mean = (0.5,)
    config.data.std = (0.25,)
    config.train.batch_size = 12
    config.train.total_epochs = 2.0
    config.train.ema_decay = 0.9
    config.train.label_smoothing = 0.1
    config.log.every_steps = 1
    return config
