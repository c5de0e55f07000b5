"""Small image trees on disk, and configurations of the data section."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from packing import SIZES, jpeg
from PIL import Image

from aliasfree_jax.config import base_config
from aliasfree_jax.data.prepare import prepare


@pytest.fixture
def data_config() -> Callable[..., ConfigDict]:
    """`config.data` with defaults for 8-pixel images and some fields replaced."""

    def make(**fields: Any) -> ConfigDict:
        data = base_config().data
        data.update({"image_size": 8, **fields})
        return data

    return make


def encode(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """Encodes an array as an image file."""
    return encode


@pytest.fixture
def fast_packages() -> None:
    """Skips a test of the fast image backend if its packages are missing."""
    for package in ("simplejpeg", "cykooz_resizer"):
        pytest.importorskip(package, reason="needs pip install 'aliasfree_jax[fast]'")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """train: 3 cats, 2 dogs; val: 1 cat, 2 dogs. Each PNG has one colour, which identifies it."""
    root = tmp_path / "tree"
    files = [
        "train/cat/a.png",
        "train/cat/b.PNG",
        "train/cat/deeper/c.png",
        "train/dog/a.png",
        "train/dog/b.png",
        "val/cat/z.png",
        "val/dog/x.png",
        "val/dog/y.png",
    ]
    for i, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(np.full((8, 8, 3), 10 * i, np.uint8)))
    (root / "train" / "cat" / "._a.png").write_bytes(b"left by an archiver")
    return root


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Two classes; 9 training images, 3 validation images."""
    root = tmp_path_factory.mktemp("folders")
    for split, count in (("train", 9), ("val", 3)):
        for index in range(count):
            path = root / split / ("cat", "dog")[index % 2] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(seed=index))
    return root


@pytest.fixture(scope="session")
def packed(folders, tmp_path_factory):
    directory = tmp_path_factory.mktemp("packed") / "deep"
    prepare(folders, directory, **SIZES)
    return directory
