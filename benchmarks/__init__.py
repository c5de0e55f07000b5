"""Benchmarks (`python -m benchmarks`) and pages of their results (`python -m benchmarks.page`)."""

import os

# The measuring process and the processes that it starts share the memory of an accelerator.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
