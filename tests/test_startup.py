"""Tests of the start of programs: the restart for huge pages, and XLA flags."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import jaxlib
import pytest

from aliasfree_jax import startup
from aliasfree_jax.processes import LAUNCHERS

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("train.py", "eval.py", "aliasfree_jax/__main__.py", "benchmarks/__main__.py")
PROGRAMS += ("experiments/__main__.py", "experiments/worker.py")
glibc = pytest.mark.skipif(not startup._is_glibc(), reason="the tunable needs glibc 2.35 or later")


@pytest.fixture
def fit(monkeypatch, tmp_path):
    """Makes a process that restarts; each test removes one condition. Yields the kernel's file of modes."""
    modes = tmp_path / "enabled"
    modes.write_text("always [madvise] never\n")
    monkeypatch.setattr(startup, "_MODES", modes)
    monkeypatch.setattr(os, "confstr", {"CS_GNU_LIBC_VERSION": "glibc 2.36"}.get)
    monkeypatch.setattr(sys, "argv", ["train.py", "--workdir=x"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-u", "train.py", "--workdir=x"])
    tracer = sys.gettrace()
    sys.settrace(None)
    yield modes
    sys.settrace(tracer)


def test_a_program_restarts_with_the_tunable(fit):
    assert startup.wants_restart({})
    environment = startup.with_huge_pages({"HOME": "/root"})
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1" and environment["HOME"] == "/root"
    assert not startup.wants_restart(environment)


def test_tunables_of_other_kinds_are_kept(fit):
    given = {"GLIBC_TUNABLES": "glibc.pthread.rseq=0"}
    assert startup.wants_restart(given)
    assert startup.with_huge_pages(given)["GLIBC_TUNABLES"] == "glibc.pthread.rseq=0:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize("tunables", ["glibc.malloc.hugetlb=0", "a.b.c=1:glibc.malloc.arena_max=2"])
def test_who_sets_a_tunable_of_malloc_decides(fit, tunables):
    assert not startup.wants_restart({"GLIBC_TUNABLES": tunables})


def test_a_process_restarts_once_even_if_its_tunables_are_taken_away(fit):
    marked = startup.with_huge_pages({})
    del marked["GLIBC_TUNABLES"]
    assert not startup.wants_restart(marked)
    assert startup.wants_restart({**marked, "ALIASFREE_JAX_RESTARTED": "1"})  # the mark of another process


@pytest.mark.parametrize(
    "version", ["glibc 2.34", "glibc 1.99", "musl 1.2.5", "", None], ids=lambda version: f"{version}"
)
def test_another_c_library_is_left_alone(fit, monkeypatch, version):
    monkeypatch.setattr(os, "confstr", lambda name: version)
    assert not startup.wants_restart({})


@pytest.mark.parametrize("version", ["glibc 2.35", "glibc 2.40.9000", "glibc 3.0"])
def test_later_versions_have_the_tunable(fit, monkeypatch, version):
    monkeypatch.setattr(os, "confstr", lambda name: version)
    assert startup.wants_restart({})


@pytest.mark.parametrize("error", [ValueError("unrecognized configuration name"), OSError(22, "Invalid")])
def test_macos_and_musl_have_no_such_name(fit, monkeypatch, error):
    def confstr(name):
        raise error

    monkeypatch.setattr(os, "confstr", confstr)
    assert not startup.wants_restart({})
    monkeypatch.delattr(os, "confstr")  # Windows
    assert not startup.wants_restart({})


@pytest.mark.parametrize("modes", ["[always] madvise never", "always madvise [never]", None])
def test_the_kernel_must_give_huge_pages_to_those_who_ask(fit, modes):
    fit.write_text(modes) if modes else fit.unlink()
    assert not startup.wants_restart({})


TRACES = {**startup.LAUNCHER_COUNTS, "tpu": startup.TPU_HOSTS}


@pytest.mark.parametrize("launcher", TRACES)
def test_what_a_launcher_started_is_left_alone(fit, launcher):
    assert launcher in LAUNCHERS
    assert not startup.wants_restart({TRACES[launcher]: "1"})


def test_a_debugger_keeps_its_program(fit):
    sys.settrace(lambda *_: None)
    try:
        assert not startup.wants_restart({})
    finally:
        sys.settrace(None)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="debuggers use sys.monitoring from 3.12 on")
def test_a_monitoring_debugger_keeps_its_program(fit):
    sys.monitoring.use_tool_id(sys.monitoring.DEBUGGER_ID, "a debugger")
    try:
        assert not startup.wants_restart({})
    finally:
        sys.monitoring.free_tool_id(sys.monitoring.DEBUGGER_ID)


@pytest.mark.parametrize(
    ("typed", "argv", "restarts"),
    [
        (["python", "train.py"], ["train.py"], True),
        (["python", "-X", "dev", "a/train.py", "x"], ["a/train.py", "x"], True),
        (["python", "-m", "benchmarks", "--quick"], ["/here/benchmarks/__main__.py", "--quick"], True),
        (["python", "-"], ["train.py"], False),  # standard input is already used up
        (["python"], [""], False),
        (["python", "-c", "import runpy; ..."], ["train.py", "x"], False),
        (["python", "-c", "from execnet ..."], ["/venv/bin/pytest"], False),  # a worker of xdist
        (["python", "other.py", "x"], ["train.py", "x"], False),  # runpy inside another program
        (["python", "train.py", "x"], ["train.py", "y"], False),
        (["python", "train.py", "x"], ["train.py", "x", "y"], False),
    ],
)
def test_only_the_program_that_was_typed_restarts(fit, monkeypatch, typed, argv, restarts):
    monkeypatch.setattr(sys, "orig_argv", typed)
    monkeypatch.setattr(sys, "argv", argv)
    assert startup.wants_restart({}) == restarts


def test_python_that_does_not_know_its_program_restarts_nothing(fit, monkeypatch):
    monkeypatch.setattr(sys, "executable", None)  # embedded in another program
    assert not startup.wants_restart({})


def test_flags_for_xla():
    own = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
    assert startup.xla_flags("", "0.10.2") == own
    assert startup.xla_flags("--xla_dump_to=x", "0.10.2") == f"--xla_dump_to=x {own}"
    chosen = "--xla_cpu_experimental_ynn_fusion_type=individual_dot"
    assert startup.xla_flags(chosen, "0.10.2") == chosen
    for later in ("0.11.2", "0.12.0.1", "1.0", "0.100.1"):  # XLA ends a process that has an unknown flag
        assert startup.xla_flags("--a=b", later) == "--a=b"


def test_xla_of_this_version_knows_the_flags():
    """conftest.py sets the same flags; XLA would have ended this process if it did not know them."""
    given = os.environ["XLA_FLAGS"]
    assert given == startup.xla_flags(given, jaxlib.__version__)
    assert jnp.ones(3).sum() == 3


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_begin_before_they_import_anything_slow(program):
    light = {*sys.stdlib_module_names, "aliasfree_jax.errors", "aliasfree_jax.startup"}
    for node in ast.parse((ROOT / program).read_text()).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
            assert ast.unparse(node.body[0]) == "begin()"
            return
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= light
        if isinstance(node, ast.ImportFrom):
            assert node.module in light or str(node.module).split(".")[0] in sys.stdlib_module_names
    raise AssertionError("the program has no beginning")


# A program that logs every start; it assumes a kernel with huge pages on request.
TELLING = """
import os, sys
from pathlib import Path
from aliasfree_jax import startup
here = Path(__file__)
startup._MODES = here.with_name("enabled")
with here.with_name("starts").open("a") as starts:
    starts.write(f"{os.getpid()} {os.environ.get('GLIBC_TUNABLES')} {sys.argv[1:]}\\n")
startup.begin()
assert sys.excepthook is startup.excepthook
"""


@pytest.fixture
def telling(tmp_path):
    """Returns a function that starts a program with `code`. The file `starts` gets one line per start."""
    (tmp_path / "enabled").write_text("always [madvise] never\n")

    def start(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        (tmp_path / "program.py").write_text(TELLING + code)
        kept = {k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES", startup._RESTARTED)}
        return subprocess.Popen(
            [sys.executable, str(tmp_path / "program.py"), *arguments],
            env=kept | {"PYTHONPATH": str(ROOT)} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@glibc
def test_a_process_restarts_as_itself(telling, tmp_path):
    """The restart has the same process id and arguments, and the tunable. Status and input are kept."""
    process = telling("print(sys.stdin.read().upper()); sys.exit(41)", "a b", "--flag")
    out, err = process.communicate("typed\n" * 10_000)
    assert (out, err, process.returncode) == ("TYPED\n" * 10_000 + "\n", "", 41)
    assert (tmp_path / "starts").read_text().splitlines() == [
        f"{process.pid} None ['a b', '--flag']",
        f"{process.pid} glibc.malloc.hugetlb=1 ['a b', '--flag']",
    ]


@glibc
def test_what_a_process_starts_inherits_the_pages(telling, tmp_path):
    again = "import subprocess\nif len(sys.argv) == 1: subprocess.run([sys.executable, __file__, 'child'])"
    assert telling(again).wait() == 0
    lines = (tmp_path / "starts").read_text().splitlines()
    assert len(lines) == 3 and lines[2].endswith("glibc.malloc.hugetlb=1 ['child']")


@glibc
def test_signals_reach_the_restarted_process(telling):
    process = telling("print('ready', flush=True); sys.stdin.read()")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM


@glibc
def test_ignored_signals_stay_ignored(telling):
    """`nohup` starts programs in this way."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = telling("import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.communicate()[0] == "True\n"


@glibc
def test_it_restarts_once_where_the_tunable_is_taken_away(telling, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os; os.environ.pop('GLIBC_TUNABLES', None)")
    process = telling("print('done')", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert process.communicate(timeout=60)[0] == "done\n"
    assert len((tmp_path / "starts").read_text().splitlines()) == 2


@glibc
def test_where_the_system_refuses_the_program_goes_on(telling, tmp_path):
    process = telling("print('done')", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    process.communicate()
    (tmp_path / "starts").unlink()
    (tmp_path / "sitecustomize.py").write_text(
        "import os\ndef refused(*_): raise PermissionError\nos.execve = refused"
    )
    process = telling("print('done')", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert process.communicate()[0] == "done\n"
    assert len((tmp_path / "starts").read_text().splitlines()) == 1


@glibc
@pytest.mark.skipif(not startup._on_request(), reason="this kernel does not give huge pages on request")
def test_huge_pages_save_page_faults(telling):
    """Strings of 32 MiB in turn: 8192 faults each with pages of 4 KiB, 16 with pages of 2 MiB."""
    code = "\n".join(
        (
            "import resource",
            "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt",
            "before = faults()",
            "for _ in range(100): b'x' * 2**25",
            "print((faults() - before) // 100)",
        )
    )
    few = int(telling(code).communicate()[0])
    many = int(telling(code, GLIBC_TUNABLES="glibc.malloc.hugetlb=0").communicate()[0])
    assert many > 8000  # the negative control
    assert few < many / 4  # if memory is fragmented, some pages are small
