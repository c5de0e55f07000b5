"""Keeps freed memory in the process, on Linux: XLA on a CPU asks for its temporaries anew in every call.

The C library returns large blocks to the kernel and gets them back page by page, zeroed: a tenth of a
forward pass, more of a training step (fast_exact rule 10; docs/benchmarks.md).
"""

import ctypes
import platform

# mallopt's numbers of these parameters, from <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc never to return freed memory; to be called before JAX starts its threads.

    Returns:
      Whether it did: False on other systems and C libraries, where it does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # One arena, or each thread would keep its own; no mapping of large blocks; no trimming.
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
    return all(mallopt(parameter, value) == 1 for parameter, value in settings.items())
