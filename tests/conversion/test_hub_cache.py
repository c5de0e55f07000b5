"""The cache of a hub: without network, complete or damaged, from this package or another program."""

import pytest
from hub_server import commit_of, hub_at, kept, serving

from aliasfree_jax.conversion.hub import fetch
from aliasfree_jax.errors import ConversionError

DATA = bytes(range(251)) * 40
CONFIG = {"config.json": b'{"architecture": "resnet18"}'}


def test_what_another_program_cached_may_be_a_part(tmp_path):
    """The cache has only the weights. Their descriptions are requested, and reported if unreachable."""
    import huggingface_hub

    files, told = {"pytorch_model.bin": DATA, **CONFIG}, []
    commit = commit_of(files)
    with serving({"a/b": {"main": files}}) as endpoint:
        with hub_at(endpoint, tmp_path):
            path = huggingface_hub.hf_hub_download("a/b", "pytorch_model.bin")
        with hub_at(endpoint, tmp_path, HF_HUB_OFFLINE="1"):
            for reference in ("hf://a/b", f"hf://a/b@{commit}", f"hf://a/b@{commit}/pytorch_model.bin"):
                assert str(fetch(reference, told.append)) == path
                assert (
                    "The cached file is used (it may lack config.json and preprocessor_config.json): "
                    in told[-1]
                )
        with hub_at(endpoint, tmp_path):
            assert fetch(f"hf://a/b@{commit}", pytest.fail).with_name("config.json").exists()


@pytest.mark.parametrize("why", ["stopped", "offline", "fault"])
def test_without_the_hub(why, tmp_path):
    """Cached files are used, with a note unless they belong to a commit. Other files are a one-line error."""
    seen, faults, told = [], {}, []
    files = {"pytorch_model.bin": DATA, **CONFIG}
    with serving({"a/b": {"main": files}}, faults, seen=seen) as endpoint:
        with hub_at(endpoint, tmp_path):
            path = fetch("hf://a/b")
            asked = len(seen)
            for file in ("", "/pytorch_model.bin"):
                assert fetch(f"hf://a/b@{commit_of(files)}{file}", pytest.fail) == path
            assert len(seen) == asked
        if why == "fault":
            faults.update({"a/b": "502", "a/c": "502"})
            check_without(endpoint, tmp_path, path, told, {})
            assert len(seen) > asked
    said = {"offline": "HF_HUB_OFFLINE is set, so", "stopped": "cannot be reached ([Errno 111]"}
    if why != "fault":
        check_without(endpoint, tmp_path, path, told, {"HF_HUB_OFFLINE": "1"} if why == "offline" else {})
    assert said.get(why, "(status 502)") in told[0]
    assert told[0].endswith(f" The cached file is used: {path}.") and len(told) == 2


def check_without(endpoint, home, path, told, environment):
    with hub_at(endpoint, home, **environment):
        assert fetch("hf://a/b", told.append) == path
        assert fetch("hf://a/b@main/pytorch_model.bin", told.append) == path
        assert fetch(f"hf://a/b@{path.parent.name}", pytest.fail) == path
        for missing in ("hf://a/c", "hf://a/b@v2", f"hf://a/b@{'1' * 40}", "hf://a/b/x.pth"):
            with pytest.raises(ConversionError, match="^hf://a/[bc]"):
                fetch(missing, told.append)


def test_a_copy_damaged_on_the_disk_is_removed_everywhere(tmp_path):
    """Two revisions share a damaged file. No link to the removed file is kept."""
    one = {"w.pth": DATA}
    repository = {"main": one, "next": {**one, "new.txt": b"n"}}
    with serving({"a/b": repository}) as endpoint, hub_at(endpoint, tmp_path) as cache:
        path, other = fetch("hf://a/b"), fetch("hf://a/b@next")
        assert path != other and path.samefile(other)
        path.resolve().write_bytes(DATA[::-1])
        with pytest.raises(ConversionError, match="is damaged, so it was removed from the cache"):
            fetch(f"hf://a/b@{commit_of(one)}")
        assert kept(cache) == []
        assert fetch("hf://a/b@next").read_bytes() == DATA
