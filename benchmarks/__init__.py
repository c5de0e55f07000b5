"""Measurements: `python -m benchmarks`, and the page made from them: `python -m benchmarks.page`."""

import os

# The process that measures and those that it starts share an accelerator's memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
