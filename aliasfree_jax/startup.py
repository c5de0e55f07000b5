"""Prepares a program before its imports: huge pages, XLA's faster convolutions, errors without a traceback.

A training step on a CPU allocates and frees hundreds of megabytes. glibc returns this memory to the system,
and the next step gets it back in pages of 4 KiB. Each page costs a page fault. The faults take a third of the
step's time. With the tunable `glibc.malloc.hugetlb=1` glibc asks for transparent huge pages of 2 MiB. glibc
reads the tunable before Python starts, so the program executes itself again with it, in the same process.
"""

import importlib.metadata
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from aliasfree_jax.errors import excepthook, typed_start

HUGE_PAGES = "glibc.malloc.hugetlb=1"
_TUNABLES = "GLIBC_TUNABLES"
_RESTARTED = "ALIASFREE_JAX_RESTARTED"  # id of the restarted process, in case the tunable gets lost
_MODES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# The variable in which each launcher sets the number of processes.
LAUNCHER_COUNTS = {"slurm": "SLURM_STEP_NUM_TASKS", "openmpi": "OMPI_COMM_WORLD_SIZE"}
TPU_HOSTS = "TPU_WORKER_HOSTNAMES"  # the variable in which a TPU pod lists its hosts

# XLA flags by jaxlib series. In 0.10, YNNPACK's convolutions take twice the time of Eigen's.
_XLA_FLAGS = {"0.10": "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"}


def xla_flags(given: str, jaxlib: str) -> str:
    """Adds our XLA flags for this version of jaxlib to the `given` ones, which have priority."""
    own = _XLA_FLAGS.get(".".join(jaxlib.split(".")[:2]), "")
    return given if own.partition("=")[0] in given else f"{given} {own}".strip()


def _is_glibc() -> bool:
    """Whether the C library is glibc 2.35 or newer, which has the tunable. musl and macOS lack the name."""
    try:
        version = re.fullmatch(r"glibc (\d+)\.(\d+).*", os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (AttributeError, ValueError, OSError):
        return False
    return version is not None and (int(version[1]), int(version[2])) >= (2, 35)


def _on_request() -> bool:
    """Whether the kernel provides huge pages only on request (mode madvise)."""
    try:
        return "[madvise]" in _MODES.read_text()
    except OSError:
        return False


def _debugged() -> bool:
    """Whether a debugger is attached: it would lose the program after the restart."""
    monitored = sys.version_info >= (3, 12) and sys.monitoring.get_tool(sys.monitoring.DEBUGGER_ID)
    return bool(sys.gettrace() or monitored)


def _is_command() -> bool:
    """Whether this process was started only for this program: `python FILE ...` or `python -m NAME ...`.

    False if the program comes from standard input, runs inside another program (`runpy`, a worker of
    pytest-xdist), or if Python is embedded.
    """
    start = typed_start()
    same = sys.orig_argv[1 + len(start) :] == sys.argv[1:]
    return bool(sys.executable) and same and (start[-1:] == sys.argv[:1] or start[-2:-1] == ["-m"])


def wants_restart(environment: Mapping[str, str]) -> bool:
    """Whether the program should execute itself again to get huge pages.

    It restarts only once, only if huge pages need it, and not if a launcher of several processes or a
    debugger controls the process. If a malloc tunable is already set, the program keeps it and does not
    restart.
    """
    return (
        _is_glibc()
        and _on_request()
        and "glibc.malloc" not in environment.get(_TUNABLES, "")
        and environment.get(_RESTARTED) != str(os.getpid())
        and not any(variable in environment for variable in (*LAUNCHER_COUNTS.values(), TPU_HOSTS))
        and not _debugged()
        and _is_command()
    )


def with_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment for the restart. Other tunables are kept."""
    tunables = ":".join(filter(None, [environment.get(_TUNABLES, ""), HUGE_PAGES]))
    return {**environment, _TUNABLES: tunables, _RESTARTED: str(os.getpid())}


def begin() -> None:
    """Prepares this process for a program of the package. Call it before all other imports.

    A failed import prints one message and exits with status 2 (`errors.excepthook`). XLA reads its flags at
    its first use. The restart keeps process id, standard streams, ignored signals and arguments, and child
    processes inherit the environment. If the system refuses the restart, the program continues without it.
    """
    sys.excepthook = excepthook
    try:
        os.environ["XLA_FLAGS"] = xla_flags(
            os.environ.get("XLA_FLAGS", ""), importlib.metadata.version("jaxlib")
        )
    except importlib.metadata.PackageNotFoundError:
        return  # jaxlib is missing: the first import will end the program
    if wants_restart(os.environ):
        try:
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], with_huge_pages(os.environ))
        except OSError:
            pass
