"""The pipeline on real images, if available (they are not part of the repository)."""

from pathlib import Path

import numpy as np
import pytest

from aliasfree_jax.conversion.originals import CIFAR10
from aliasfree_jax.data import FolderSource, eval_batches, limit
from aliasfree_jax.data.decode import decode

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PHOTOGRAPHS, CIFAR = DATA / "imagenet-sample.tar", DATA / "cifar10-jpeg.tar.xz"


@pytest.mark.skipif(not PHOTOGRAPHS.exists(), reason="no ImageNet sample here")
def test_all_photographs_decode_and_grey_ones_become_rgb(data_config):
    source = FolderSource(PHOTOGRAPHS, "val")
    assert (len(source), len(source.class_names)) == (89, 89)
    pixels = [decode(source[i].image, source[i].name) for i in range(89)]
    grey = [(p[..., 0] == p[..., 1]).all() and (p[..., 1] == p[..., 2]).all() for p in pixels]
    assert all(p.shape[2] == 3 for p in pixels) and sum(grey) == 4
    batches = list(eval_batches(source, data_config(image_size=224), batch_size=30))
    assert sum(b["mask"].sum() for b in batches) == 89
    assert np.isfinite([b["image"].mean() for b in batches]).all()


@pytest.mark.skipif(not CIFAR.exists(), reason="no CIFAR-10 here")
def test_cifar_from_a_compressed_tar(data_config):
    source = FolderSource(CIFAR, "val")
    assert (source.split, len(source)) == ("test", 10_000)
    assert source.class_names == CIFAR10
    assert np.bincount(source.labels).tolist() == [1000] * 10
    few = limit(source, 20)
    batches = list(eval_batches(few, data_config(image_size=32), batch_size=20))
    assert np.bincount(batches[0]["label"]).tolist() == [2] * 10
