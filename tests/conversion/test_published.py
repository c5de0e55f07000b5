"""The published weights of antialiased-cnns, from a real server with the published file names."""

import hashlib
import re

import pytest
from hub_server import CLOSED, CUT, SHORT, WRONG, serving

from aliasfree_jax.conversion import published
from aliasfree_jax.conversion.antialiased_cnns import MODELS
from aliasfree_jax.conversion.published import MIRROR, PUBLISHED, fetch_published
from aliasfree_jax.errors import ConversionError

DATA = bytes(range(256)) * 400
DIGITS = hashlib.sha256(DATA).hexdigest()[:8]
NAME = "antialiased-cnns/resnet50_lpf4_finetune"
FILE = f"resnet50_lpf4_finetune-{DIGITS}.pth"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The directory of the files. `DATA` replaces the file of `NAME`, which has 98 MB."""
    monkeypatch.setitem(PUBLISHED, "resnet50_lpf4_finetune", DIGITS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "aliasfree_jax" / "antialiased-cnns"


def test_the_names_are_those_of_the_original():
    assert len(PUBLISHED) == 59 and len(set(PUBLISHED.values())) == 59
    assert all(re.fullmatch("[0-9a-f]{8}", digits) for digits in PUBLISHED.values())
    assert {name.partition("_lpf")[0] for name in PUBLISHED} == set(MODELS)
    assert (PUBLISHED["resnet50_lpf4"], PUBLISHED["resnet50_lpf4_finetune"]) == ("994b528f", "cad66808")
    assert (PUBLISHED["alexnet_lpf2"], PUBLISHED["vgg11_lpf4_finetune"]) == ("da8aca74", "35eab449")
    assert published.ADDRESS == "https://antialiased-cnns.s3.us-east-2.amazonaws.com/weights_v0.1"


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_file_is_downloaded_once(cache, monkeypatch, slash):
    seen, told = [], []
    with serving({}, others={f"weights/{FILE}": DATA}, seen=seen) as address:
        monkeypatch.setenv(MIRROR, f"{address}/weights{slash}")
        path = fetch_published(NAME, told.append)
        assert path == cache / FILE and path.read_bytes() == DATA
        assert fetch_published(NAME, pytest.fail) == path
        assert seen == [f"GET /weights/{FILE}"]
        assert told == []  # a progress bar is enough
        path.write_bytes(DATA[:-1])  # damaged on the disk
        assert fetch_published(NAME, told.append).read_bytes() == DATA
        assert told[0] == f"{NAME}: {path} is damaged. It is downloaded again." and len(seen) == 2
    assert fetch_published(NAME, pytest.fail) == path  # without a network
    assert list(cache.iterdir()) == [path]


def test_a_directory_can_be_the_mirror(cache, monkeypatch, tmp_path):
    (tmp_path / FILE).write_bytes(DATA)
    monkeypatch.setenv(MIRROR, tmp_path.as_uri())
    assert fetch_published(NAME, str).read_bytes() == DATA


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("404", r"cannot be downloaded \(HTTP Error 404: Not Found\)"),
        ("403", r"cannot be downloaded \(HTTP Error 403"),
        ("500", r"cannot be downloaded \(HTTP Error 500"),
        (CLOSED, r"cannot be downloaded \(Remote end closed connection"),
        (CUT, r"cannot be downloaded \(IncompleteRead\(0 bytes read, 51200 more expected\)\)"),
        (SHORT, f"has a SHA-256 that begins with [0-9a-f]{{8}}, expected {DIGITS}. The download is damaged"),
        (WRONG, f"has a SHA-256 that begins with [0-9a-f]{{8}}, expected {DIGITS}. The download is damaged"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_leaves_nothing(cache, monkeypatch, fault, said):
    faults = {FILE: fault}
    with serving({}, faults, {FILE: DATA}) as address:
        monkeypatch.setenv(MIRROR, address)
        with pytest.raises(ConversionError, match=said) as caught:
            fetch_published(NAME, str)
        assert f"{address}/{FILE}" in str(caught.value) and MIRROR in str(caught.value)
        assert list(cache.iterdir()) == []
        faults.clear()
        assert fetch_published(NAME, str).read_bytes() == DATA


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "nonsense", "http://", "http://no host/"])
def test_without_a_server(cache, monkeypatch, address):
    monkeypatch.setenv(MIRROR, address)
    with pytest.raises(ConversionError, match=f"cannot be downloaded .* or save the file as {cache / FILE}"):
        fetch_published(NAME, str)
    assert list(cache.iterdir()) == []


def test_ctrl_c_leaves_nothing(cache, monkeypatch):
    class Interrupted(published.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    monkeypatch.setattr(published, "tqdm", Interrupted)
    with serving({}, others={FILE: DATA}) as address:
        monkeypatch.setenv(MIRROR, address)
        with pytest.raises(KeyboardInterrupt):
            fetch_published(NAME, str)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written(cache, monkeypatch, tmp_path):
    (tmp_path / "aliasfree_jax").write_text("a file where the directory should be")
    with pytest.raises(ConversionError, match=r"cannot be stored \(.*\). Fix that, or set XDG_CACHE_HOME"):
        fetch_published(NAME, str)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "vgg11_lpf4",
            "vgg11_lpf4 was never published. The files for vgg11: antialiased-cnns/vgg11_lpf4_finetune.",
        ),
        (
            "resnet50",
            "resnet50 was never published. The files for resnet50: antialiased-cnns/resnet50_lpf2, anti",
        ),
        (
            "resnet50_lpf6",
            "resnet50_lpf6 was never published. The files for resnet50: .*/resnet50_lpf4_finetune.",
        ),
        (
            "resnet50_lpf5_finetune",
            "The files for resnet50: .*/resnet50_lpf4, .*/resnet50_lpf5, .*/resnet50_lpf4_finetune.",
        ),
        ("restnet50_lpf4", "Did you mean 'resnet50' or"),
        ("", "unknown published name antialiased-cnns/: network ''. Known: alexnet, densenet121"),
    ],
)
def test_names_of_nothing(cache, name, said):
    with pytest.raises(ConversionError, match=said):
        fetch_published(f"antialiased-cnns/{name}", pytest.fail)
