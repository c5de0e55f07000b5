"""Four virtual CPU devices for every test; set before anything imports jax."""

import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4".strip()
)

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:  # train.py, eval.py and configs/ are not part of the installed package
    sys.path.append(ROOT)
