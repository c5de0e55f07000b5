"""Shared helpers for tests of packed images."""

import io

import numpy as np
from PIL import Image

from aliasfree_jax.data import prepare as module
from aliasfree_jax.data import shards

SIZES = {"per_shard": 4, "side": 0, "workers": 2}


def jpeg(height=20, width=30, seed=0) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def in_process(monkeypatch):
    """Writes shards in this process, which starts faster."""

    class Pool:
        def __init__(self, workers, context, begin, arguments):
            monkeypatch.setattr(shards, "_sources", *arguments)

        def shutdown(self, cancel_futures):
            pass

        map = staticmethod(map)

    monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)
