"""Packing that was interrupted, or that finds existing files."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from packing import SIZES, in_process

from aliasfree_jax.__main__ import main
from aliasfree_jax.data import prepare as module
from aliasfree_jax.data import shards
from aliasfree_jax.data.prepare import prepare
from aliasfree_jax.data.records import RecordSource
from aliasfree_jax.errors import DataError
from aliasfree_jax.files import LOCK, OccupiedError, sole_writer


def test_an_interrupted_run_goes_on(folders, tmp_path, monkeypatch):
    """Killed within the second shard: the first shard is not written again."""
    directory = tmp_path / "out"
    directory.mkdir()
    monkeypatch.setattr(shards, "_sources", module.open_sources(folders))
    first, second, *_ = module.tasks_of(module.open_sources(folders), directory, 4, 0)
    note = module.write_shard(first)
    second.path.with_suffix(".part").write_bytes(b"half a shard")
    before = first.path.stat().st_mtime_ns
    in_process(monkeypatch)
    info = prepare(folders, directory, **SIZES)
    assert first.path.stat().st_mtime_ns == before
    assert info["splits"]["train"]["shards"][0]["sha256"] == note["sha256"]
    assert len(RecordSource(directory, "train")) == 9
    assert not list(directory.glob("*.part"))


@pytest.fixture
def unfinished(folders, tmp_path, monkeypatch):
    """A directory with all shards and notes, but no `info.json`."""
    directory = tmp_path / "unfinished"
    directory.mkdir()
    monkeypatch.setattr(shards, "_sources", module.open_sources(folders))
    for task in module.tasks_of(shards._sources, directory, 4, 0):
        shards.write_shard(task)
    return directory


NOTE = "train-00000-of-00003.json"
SHARD = "train-00000-of-00003.array_record"


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", "{}", '{"start": 0}', "\0" * 50, "cut", "labels"])
def test_a_note_that_cannot_be_used_is_a_shard_to_be_made_again(folders, unfinished, monkeypatch, damage):
    in_process(monkeypatch)
    note = (unfinished / NOTE).read_text()
    whole = (unfinished / SHARD).read_bytes()
    texts = {"cut": note[:-20], "labels": json.dumps(json.loads(note) | {"labels": None})}
    (unfinished / NOTE).write_text(texts.get(damage, damage))
    kept = (unfinished / SHARD.replace("00000", "00001")).stat().st_mtime_ns
    (unfinished / SHARD).write_bytes(b"of an older day")
    prepare(folders, unfinished, **SIZES)
    assert (unfinished / SHARD).read_bytes() == whole
    assert (unfinished / SHARD.replace("00000", "00001")).stat().st_mtime_ns == kept


@pytest.mark.parametrize("length", [0, 100])
def test_a_shard_that_is_cut_is_made_again(folders, unfinished, monkeypatch, length):
    in_process(monkeypatch)
    whole = (unfinished / SHARD).read_bytes()
    (unfinished / SHARD).write_bytes(whole[:length])
    (unfinished / SHARD.replace("array_record", "part")).write_bytes(b"half")
    prepare(folders, unfinished, **SIZES)
    assert (unfinished / SHARD).read_bytes() == whole and not list(unfinished.glob("*.part"))


def test_shards_of_other_images_are_not_continued(folders, unfinished, tmp_path):
    shutil.copytree(folders, tmp_path / "in")
    (tmp_path / "in/train/cat/0.jpg").rename(tmp_path / "in/train/cat/00.jpg")
    with pytest.raises(DataError, match=f"contains shards of other images.*{SHARD}"):
        prepare(tmp_path / "in", unfinished, **SIZES)
    for note in unfinished.glob("*.json"):  # without a note, the name of a shard is enough
        note.unlink()
    with pytest.raises(DataError, match="contains shards of other images or options"):
        prepare(folders, unfinished, **SIZES | {"per_shard": 5})


def test_one_writer_a_directory(folders, unfinished):
    with sole_writer(unfinished), pytest.raises(OccupiedError, match="another process writes to"):
        prepare(folders, unfinished, **SIZES)


def test_home_and_addresses(folders, tmp_path, monkeypatch, capsys):
    in_process(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folders, tmp_path / "data")
    assert main(["prepare", "~/data", "~/out"]) == 0
    assert main(["prepare", "--verify", "~/out"]) == 0
    assert len(RecordSource("~/out", "train")) == 9
    capsys.readouterr()
    for arguments in (["gs://b/data", "out2"], ["data", "gs://b/out"], ["--verify", "s3://b/out"]):
        assert main(["prepare", *arguments]) == 2
        assert "an address" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out"}


def test_a_directory_that_cannot_be_written(folders, tmp_path, monkeypatch):
    in_process(monkeypatch)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write in .*file"):
        prepare(folders, tmp_path / "file", **SIZES)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "write_json", full)
    with pytest.raises(DataError, match="cannot write .*No space left.*run the same command again"):
        prepare(folders, tmp_path / "out", **SIZES)


def test_ctrl_c_is_one_line(folders, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_write_shards", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["prepare", str(folders), str(tmp_path / "out")])
    assert end.value.code == 130
    told = capsys.readouterr().err
    assert told == f"interrupted: run the same command again to continue in {tmp_path / 'out'}\n"


@pytest.fixture
def many(folders, tmp_path):
    """Enough images for the work to last until a signal comes."""
    shutil.copytree(folders, tmp_path / "in")
    image = next((tmp_path / "in/train").rglob("*.jpg"))
    for copy in range(300):
        shutil.copy(image, image.with_name(f"copy{copy}.jpg"))
    return tmp_path / "in"


@pytest.mark.slow
def test_a_worker_that_is_killed(many, tmp_path):
    """As by the system when memory runs out: one sentence, and the work can be resumed."""
    command = [sys.executable, "-m", "aliasfree_jax", "prepare", str(many), str(tmp_path / "out")]
    command.append("--images_per_shard=1")
    job = subprocess.Popen([*command, "--workers=1"], text=True, stderr=subprocess.PIPE)
    while job.poll() is None and not list((tmp_path / "out").glob("*-of-*.json")):
        time.sleep(0.002)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    for child in children:
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
            os.kill(int(child), signal.SIGKILL)
    told = job.communicate()[1]
    assert job.returncode == 2 and "error: a worker process was killed" in told, told
    assert "Traceback" not in told
    assert subprocess.run(command).returncode == 0


@pytest.fixture
def handled():
    """Sets how SIGINT is handled, also by new processes. A shell's background jobs ignore it."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_in_a_callback_is_seen_and_not_printed(handled, monkeypatch):
    handled(signal.default_int_handler)
    told, raised = [], [lambda: signal.raise_signal(signal.SIGINT), lambda: 1 / 0]
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(lost.exc_type))
    usual = sys.unraisablehook

    def callback(phase, info):
        if raised:
            raised.pop(0)()

    gc.callbacks.append(callback)
    try:
        with shards.interrupts() as seen:
            gc.collect()  # frees an interrupt, and an error that must be reported
            gc.collect()
    finally:
        gc.callbacks.remove(callback)
    assert seen and not raised and told == [ZeroDivisionError] and sys.unraisablehook is usual


@pytest.mark.parametrize("usual", [signal.default_int_handler, signal.SIG_IGN])
def test_an_interrupt_that_is_lost_on_its_way_is_seen(usual, handled):
    handled(usual)
    with shards.interrupts() as seen:
        assert not seen
        try:  # like the interpreter for a callback of the garbage collector, which has no caller to raise to
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass
        assert bool(seen) == (usual is not signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is usual


def test_an_interrupt_that_another_thread_takes_waits(handled):
    handled(signal.default_int_handler)
    inside, end = [], threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt), shards.interrupts_wait():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # the main thread would be interrupted here
            inside.append("went on")
    finally:
        end.set()
        other.join()
    assert inside == ["went on"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_ctrl_c_while_the_workers_start_and_work(many, tmp_path, handled):
    """Sent to the whole process group at several moments: no traceback, status 130, and it can be resumed."""
    handled(signal.default_int_handler)
    program = [sys.executable, "-m", "aliasfree_jax", "prepare", str(many)]
    for number, awaited in enumerate((LOCK, "*-of-*.part", "*-of-*.json")):
        out = tmp_path / f"out{number}"  # a fresh directory for each moment
        command = [*program, str(out), "--workers=1", "--images_per_shard=1"]
        job = subprocess.Popen(command, text=True, stderr=subprocess.PIPE, start_new_session=True)
        while job.poll() is None and not list(out.glob(awaited)):
            time.sleep(0.002)
        os.killpg(job.pid, signal.SIGINT)
        told = job.communicate()[1]
        assert job.returncode == 130, told
        assert "Traceback" not in told and told.splitlines()[-1].startswith("interrupted: run the same")
    assert subprocess.run(command).returncode == 0
    assert len(RecordSource(out, "train")) == 309


def test_other_options_are_refused_before_anything_is_lost(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_sources", module.open_sources(folders))
    module.write_shard(module.tasks_of(module.open_sources(folders), tmp_path, 4, 0)[0])
    for changed in ({"side": 16}, {"per_shard": 5}):
        with pytest.raises(DataError, match="contains shards of other images or options"):
            prepare(folders, tmp_path, **SIZES | changed)
    assert len(list(tmp_path.glob("*.array_record"))) == 1
