"""Weights on a hub: a real server, the real library, and failures between them."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import CLOSED, CUT, CUT_ONCE, GATED, SHORT, WRONG, commit_of, hub_at, kept, serving

from aliasfree_jax.conversion.hub import fetch
from aliasfree_jax.errors import ConversionError, MissingPackageError

DATA = bytes(range(251)) * 40
CONFIG = {"config.json": b'{"architecture": "resnet18"}'}
TIMM = {"model.safetensors": DATA, "pytorch_model.bin": b"the same", "README.md": b"# R", **CONFIG}
HUB = {
    "timm/resnet18.a1_in1k": {"main": TIMM, "refs/pr/1": {**TIMM, "model.safetensors": DATA[::-1]}},
    "a/older": {"main": {"pytorch_model.bin": DATA, "optimizer.pt": b"o", "preprocessor_config.json": b"{}"}},
    "a/only": {"main": {"resnet20-12fca82f.th": DATA, "notes.txt": b"n"}},
    "a/many": {"main": {"b.pth": DATA, "c.safetensors": DATA}},
    "a/none": {"main": {"README.md": b""}},
    "a/parts": {"main": {"model.safetensors.index.json": b"{}", "model-00001-of-00002.safetensors": DATA}},
    "a/within": {"main": {"x/y/model.safetensors": DATA, "x/y/config.json": b"{}", "config.json": b"[]"}},
}
COMMIT = commit_of(TIMM)


@pytest.fixture(scope="module")
def endpoint():
    with serving(HUB) as address:
        yield address


@pytest.fixture
def hub(endpoint, tmp_path):
    """The directory of the cache, with a server that works."""
    with hub_at(endpoint, tmp_path) as cache:
        yield cache


@pytest.mark.parametrize(
    ("reference", "file", "companions"),
    [
        ("hf://timm/resnet18.a1_in1k", "model.safetensors", ["config.json"]),
        ("hf://timm/resnet18.a1_in1k@main", "model.safetensors", ["config.json"]),
        (f"hf://timm/resnet18.a1_in1k@{COMMIT}", "model.safetensors", ["config.json"]),
        ("hf://timm/resnet18.a1_in1k/pytorch_model.bin", "pytorch_model.bin", ["config.json"]),
        ("hf://timm/resnet18.a1_in1k@refs/pr/1", "model.safetensors", ["config.json"]),
        ("hf://timm/resnet18.a1_in1k@refs/pr/1/model.safetensors", "model.safetensors", ["config.json"]),
        ("hf://a/older", "pytorch_model.bin", ["preprocessor_config.json"]),
        ("hf://a/older/optimizer.pt", "optimizer.pt", ["preprocessor_config.json"]),
        ("hf://a/only", "resnet20-12fca82f.th", []),
        ("hf://a/many/b.pth", "b.pth", []),
        ("hf://a/within", "x/y/model.safetensors", ["config.json"]),
        ("hf://a/within@main/x/y/model.safetensors", "x/y/model.safetensors", ["config.json"]),
    ],
)
def test_the_file_and_what_describes_it(hub, reference, file, companions):
    path = fetch(reference, pytest.fail)
    assert path.as_posix().endswith(f"/{file}") and path.is_relative_to(hub)
    repository, _, revision = reference.removeprefix("hf://").partition("@")
    revisions = HUB["/".join(repository.split("/")[:2])]
    files = revisions["refs/pr/1" if revision.startswith("refs/pr/1") else "main"]
    beside = {other.name: other.read_bytes() for other in path.parent.iterdir() if other.is_file()}
    assert beside == {name: files[(Path(file).parent / name).as_posix()] for name in [path.name, *companions]}
    assert len(kept(hub)) == len(beside)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (
            "hf://resnet18",
            "does not name a repository on a hub. Expected hf://owner/name[@revision][/file], for instance hf://timm",
        ),
        ("hf://", "Expected hf://owner/name[@revision][/file]"),
        ("hf://timm/", "Expected hf://"),
        ("hf://timm/resnet18/", "Expected hf://"),
        ("hf://timm/resnet18@", "Expected hf://"),
        ("hf://timm/resnet18@/model.safetensors", "Expected hf://"),
        ("hf://timm/resnet18/../../x.pth", "Expected hf://"),
        ("hf://timm/resnet18//x.pth", "Expected hf://"),
        ("hf://timm/res net", "Expected hf://"),
        ("hf://timm/resnét", "Expected hf://"),
        ("hf:/timm/resnet18", "Expected hf://"),
        ("hf://timm/a--b", "does not name a repository on a hub: Cannot have -- or .. in repo_id"),
        (f"hf://-timm/x@{COMMIT}", "does not name a repository on a hub: Repo id must"),
        ("hf://timm/resnet19", "/timm/resnet19 does not exist or is private (status 401). Check the name"),
        ("hf://timm/resnet18.a1_in1k@v2", "/timm/resnet18.a1_in1k has no branch, tag or commit 'v2'"),
        (f"hf://timm/resnet18.a1_in1k@{'0' * 40}", f"has no branch, tag or commit '{'0' * 40}'"),
        (
            "hf://timm/resnet18.a1_in1k/x.pth",
            "has no x.pth. Files of weights: model.safetensors, pytorch_model.bin. Form",
        ),
        (
            "hf://a/many",
            "has no model.safetensors nor pytorch_model.bin. Files of weights: b.pth, c.safetensors. Form",
        ),
        (
            "hf://a/none",
            "has no model.safetensors nor pytorch_model.bin. It has no file of weights. Form: hf",
        ),
        (
            "hf://a/parts",
            "its weights are split over several files, listed in model.safetensors.index.json. That is not",
        ),
        (
            "hf://a/parts/model.safetensors.index.json",
            "over several files, listed in model.safetensors.index.json",
        ),
    ],
)
def test_names_of_nothing(hub, reference, said):
    with pytest.raises(ConversionError) as caught:
        fetch(reference, pytest.fail)
    assert said in str(caught.value) and reference in str(caught.value)
    assert str(caught.value).count("\n") == 0 and kept(hub) == []


FAULTS = {
    "private": (
        {"a/b": "401"},
        "/a/b does not exist or is private (status 401). Check the name. To read a private",
    ),
    "forbidden": ({"a/b": "403"}, "does not exist or is private (status 403)"),
    "gone": ({"a/b": "404"}, "does not exist or is private (status 404)"),
    "gated": (
        {"a/b": GATED},
        "/a/b needs its owner's permission. Ask for it there, then log in: hf auth login.",
    ),
    "overload": ({"a/b": "503"}, "/a/b cannot be read now (status 503). Try again later."),
    "fault": ({"a/b": "500"}, "/a/b cannot be read now (status 500). Try again later."),
    "closed": ({"a/b": CLOSED}, "/a/b cannot be reached (Server disconnected"),
    "short": ({"w.pth": SHORT}, "w.pth: the download failed (Consistency check failed"),
    "cut": ({"w.pth": CUT}, "w.pth: the download failed (peer closed connection"),
    "wrong": (
        {"w.pth": WRONG},
        "w.pth has the checksum 261ba979d2fc, the hub states 596978f46685. The file is damaged",
    ),
    "wrong note": ({"config.json": WRONG}, "config.json has the checksum"),
    "file 403": ({"w.pth": "403"}, "/a/b does not exist or is private (status 403)"),
    "file 404": ({"w.pth": "404"}, "the hub lists w.pth but does not return it (status 404)"),
    "file 500": ({"w.pth": "500"}, "w.pth: http://127.0.0.1:"),
    "note 500": ({"config.json": "500"}, "config.json: http://127.0.0.1:"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_goes_wrong_is_one_sentence_and_leaves_nothing(name, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the library waits between two tries
    faults, said = FAULTS[name]
    faults = dict(faults)
    with (
        serving({"a/b": {"main": {"w.pth": DATA, **CONFIG}}}, faults) as endpoint,
        hub_at(endpoint, tmp_path) as cache,
    ):
        with pytest.raises(ConversionError) as caught:
            fetch("hf://a/b", pytest.fail)
        assert str(caught.value).startswith("hf://a/b: ") and said in str(caught.value)
        assert "\n" not in str(caught.value)
        assert set(kept(cache)) < {DATA, *CONFIG.values()}
        faults.clear()  # and the next try starts from scratch
        assert fetch("hf://a/b", pytest.fail).read_bytes() == DATA
        assert len(kept(cache)) == 2


def test_a_download_goes_on_where_it_broke_off(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with (
        serving({"a/b": {"main": {"w.pth": DATA}}}, {"w.pth": CUT_ONCE}) as endpoint,
        hub_at(endpoint, tmp_path),
    ):
        assert fetch("hf://a/b").read_bytes() == DATA


def test_ctrl_c_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)  # during the pause between two tries
    with (
        serving({"a/b": {"main": {"w.pth": DATA}}}, {"w.pth": CUT}) as endpoint,
        hub_at(endpoint, tmp_path) as cache,
    ):
        with pytest.raises(KeyboardInterrupt):
            fetch("hf://a/b", pytest.fail)
        assert kept(cache) == []


def test_a_mirror_that_has_files_alone(tmp_path):
    repository = {"main": {"pytorch_model.bin": DATA, **CONFIG}, "other": {"w.pth": DATA}}
    faults = {f"/api/models/a/b/revision/{name}": "404" for name in repository}
    with serving({"a/b": repository}, faults) as endpoint, hub_at(endpoint, tmp_path):
        assert fetch("hf://a/b").with_name("config.json").exists()
        assert fetch("hf://a/b@other/w.pth").read_bytes() == DATA
        with pytest.raises(ConversionError, match=r"/a/b does not exist or is private \(status 404\)"):
            fetch("hf://a/b@other")


def test_a_cache_that_cannot_be_written(hub, tmp_path):
    (tmp_path / "hub").write_text("a file where the cache should be")
    with pytest.raises(ConversionError, match="model.safetensors: it cannot be stored in .*: (File|Not a)"):
        fetch("hf://timm/resnet18.a1_in1k")


@contextlib.contextmanager
def nobody_imported(package: str) -> Iterator[None]:
    def modules():
        return {name: sys.modules[name] for name in [*sys.modules] if name.partition(".")[0] == package}

    before = modules()
    try:
        for name in before:
            del sys.modules[name]
        yield
    finally:
        for name in modules():
            del sys.modules[name]
        sys.modules.update(before)


def test_where_nobody_imported_the_library(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name, said in [("a--b/c", "Cannot have -- or"), ("a/b", "http://127.0.0.1:9/a/b cannot be reached")]:
        with nobody_imported("huggingface_hub"), pytest.raises(ConversionError, match=said):
            fetch(f"hf://{name}", pytest.fail)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackageError, match=r"hf://a/b needs huggingface_hub .*'aliasfree_jax\[hub\]'"):
        fetch("hf://a/b")
