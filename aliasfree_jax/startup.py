"""What a program does first: memory in huge pages, XLA's quicker convolutions, errors without a traceback.

A training step on a CPU allocates hundreds of megabytes and frees them again. glibc returns them to the
system, and the next step gets them back in pages of 4 KiB, each of which costs a fault: a third of the step's
time. With the tunable `glibc.malloc.hugetlb=1` glibc asks for transparent huge pages of 2 MiB. glibc reads
the tunable before Python starts, so the program executes itself again with it, as the same process.
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
_RESTARTED = "ALIASFREE_JAX_RESTARTED"  # number of the process that did, in case the tunable gets lost
_MODES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# Where each launcher tells a process how many there are.
LAUNCHER_COUNTS = {"slurm": "SLURM_STEP_NUM_TASKS", "openmpi": "OMPI_COMM_WORLD_SIZE"}
TPU_HOSTS = "TPU_WORKER_HOSTNAMES"  # ... and a TPU pod which they are

# Flags for XLA by the series of jaxlib: in 0.10 YNNPACK's convolutions take twice the time of Eigen's.
_XLA_FLAGS = {"0.10": "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"}


def xla_flags(given: str, jaxlib: str) -> str:
    """The flags for XLA: those that are `given`, and ours for this version of jaxlib; the given ones win."""
    own = _XLA_FLAGS.get(".".join(jaxlib.split(".")[:2]), "")
    return given if own.partition("=")[0] in given else f"{given} {own}".strip()


def _is_glibc() -> bool:
    """Whether this is glibc from 2.35 on, the first with the tunable; musl and macOS have no such name."""
    try:
        version = re.fullmatch(r"glibc (\d+)\.(\d+).*", os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (AttributeError, ValueError, OSError):
        return False
    return version is not None and (int(version[1]), int(version[2])) >= (2, 35)


def _on_request() -> bool:
    """Whether the kernel gives huge pages to those who ask: always and never need no asking."""
    try:
        return "[madvise]" in _MODES.read_text()
    except OSError:
        return False


def _debugged() -> bool:
    """Whether a debugger would lose the program."""
    monitored = sys.version_info >= (3, 12) and sys.monitoring.get_tool(sys.monitoring.DEBUGGER_ID)
    return bool(sys.gettrace() or monitored)


def _is_command() -> bool:
    """Whether this process was started for this program: `python FILE ...` or `python -m NAME ...`.

    Not so for what reads a program from standard input, runs it within another (`runpy`, a worker of
    pytest-xdist) or embeds Python.
    """
    start = typed_start()
    same = sys.orig_argv[1 + len(start) :] == sys.argv[1:]
    return bool(sys.executable) and same and (start[-1:] == sys.argv[:1] or start[-2:-1] == ["-m"])


def wants_restart(environment: Mapping[str, str]) -> bool:
    """Whether the program should execute itself again to get huge pages.

    It does so once, where that makes a difference and nothing else controls the process: no launcher of
    several processes, no debugger. Where a tunable of malloc is set already, it stays as it is.
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
    """The environment for the second start; tunables of other kinds are kept."""
    tunables = ":".join(filter(None, [environment.get(_TUNABLES, ""), HUGE_PAGES]))
    return {**environment, _TUNABLES: tunables, _RESTARTED: str(os.getpid())}


def begin() -> None:
    """Prepares this process for a program of the package; called before anything else is imported.

    Imports that fail become one message and status 2 (`errors.excepthook`). XLA reads its flags when it
    first runs. The second start keeps process number, standard streams, ignored signals and arguments, and
    what this process starts inherits all of it. Where the system refuses it, the program goes on as it is.
    """
    sys.excepthook = excepthook
    try:
        os.environ["XLA_FLAGS"] = xla_flags(
            os.environ.get("XLA_FLAGS", ""), importlib.metadata.version("jaxlib")
        )
    except importlib.metadata.PackageNotFoundError:
        return  # the program ends with its first import
    if wants_restart(os.environ):
        try:
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], with_huge_pages(os.environ))
        except OSError:
            pass
