"""Tests of paths, atomic files and the lock of a directory."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.files import (
    OccupiedError,
    local_path,
    new_directory,
    output_file,
    sole_writer,
    write_json,
    write_whole,
)


def test_the_home_directory_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/runs") == tmp_path / "runs"
    assert local_path("~") == tmp_path
    assert local_path("runs/~/x") == Path("runs/~/x")
    with pytest.raises(ConfigError, match="--workdir is '~no-such-user-afj/x'"):
        local_path("~no-such-user-afj/x", "--workdir")


@pytest.mark.parametrize(
    "address", ["gs://bucket/run", "s3://bucket", "hdfs://a/b", "https://x/y.pth", "s3:/x"]
)
def test_addresses_are_refused(address):
    scheme = address.partition(":")[0]
    with pytest.raises(ConfigError, match=f"--output is .*{scheme}:// is not supported"):
        local_path(address, "--output")


@pytest.mark.parametrize("path", ["C:/runs", "a:b/c", "data.tar", "/a/b", "x/y://z"])
def test_paths_with_colons_are_paths(path):
    assert local_path(path) == Path(path)


def test_a_file_to_write_is_checked_and_its_directory_made(tmp_path, monkeypatch):
    assert output_file(f"{tmp_path}/a/b/c.json", "--output") == tmp_path / "a/b/c.json"
    assert (tmp_path / "a/b").is_dir() and not (tmp_path / "a/b/c.json").exists()
    with pytest.raises(ConfigError, match="--output is .*/a/b, a directory. Pass the name of a file in it."):
        output_file(tmp_path / "a/b", "--output")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--plot is .*c.png, but its directory cannot be made: .*file"):
        output_file(tmp_path / "file/c.png", "--plot")
    with pytest.raises(
        ConfigError, match="--output is .*c.md, a file that is written beside it. Pass .*c.json"
    ):
        output_file(tmp_path / "c.md", "--output", (".md", ".html"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="--output is .*c.json, but you may not write into .*/a/b"):
        output_file(tmp_path / "a/b/c.json", "--output")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "half")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_new_directories_have_names_of_their_own(tmp_path):
    made = [new_directory(tmp_path / "runs" / "x") for _ in range(3)]
    assert [path.name for path in made] == ["x", "x-2", "x-3"]


def _hold(directory, ready):
    with sole_writer(Path(directory)):
        ready.set()
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready))
    process.start()
    assert ready.wait(30)
    yield process
    process.kill()
    process.join()


def test_one_writer_at_a_time_and_none_after_its_death(tmp_path, holder):
    with (
        pytest.raises(OccupiedError, match=f"process {holder.pid} on .*another directory"),
        sole_writer(tmp_path),
    ):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with sole_writer(tmp_path):
        pass
    with sole_writer(tmp_path):  # also after a normal end
        pass
