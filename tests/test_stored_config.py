"""Tests of stored configurations: other versions, damaged files, and comparison."""

import json

import pytest

from aliasfree_jax.config import FIELDS, base_config, fields, nested
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.stored_config import NOT_SET, REMOVED, defaults, differences, read_accepted, read_config


def stored(tmp_path, **changes):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(base_config().to_dict() | changes))
    return path


def test_unknown_fields_are_ignored_with_a_word_and_missing_ones_have_their_default(tmp_path):
    data = base_config().data.to_dict() | {"newer": 1, "path": "x"}
    del data["flip"]
    path = stored(tmp_path, data=data, section={"a": 1})
    with pytest.warns(
        UserWarning, match=r"does not know these fields .* ignores them: data.newer, section\."
    ):
        config = read_config(path)
    assert (config.data.path, config.data.flip) == ("x", False)
    data = base_config().data.to_dict() | {"path": "x"}
    assert config.to_dict() == base_config().to_dict() | {"data": data}


def test_removed_fields_are_named_unless_they_hold_their_default(tmp_path):
    train = base_config().train.to_dict()
    blend = {"epochs": 0.0, "start": "convnext"}
    assert read_config(stored(tmp_path, train=train | {"blend": blend})).to_dict() == base_config().to_dict()
    with pytest.warns(UserWarning, match=r"does not know these fields .* ignores them: train.blend.epochs\."):
        read_config(stored(tmp_path, train=train | {"blend": blend | {"epochs": 1.5}}))


def test_defaults_are_those_of_all_fields_that_there_are_or_were():
    assert not set(REMOVED) & set(FIELDS)
    then = base_config().to_dict() | {"train": base_config().train.to_dict() | nested(REMOVED)["train"]}
    assert fields(defaults()) == fields(then)
    assert differences(then, base_config().to_dict(), defaults()) == {}
    then["train"]["blend"]["epochs"] = 2.0
    assert differences(then, base_config().to_dict(), defaults()) == {"train.blend.epochs": (2.0, 0.0)}


def test_accepted_changes_are_no_field(tmp_path):
    path = stored(tmp_path, accepted=[{"field": "seed"}])
    assert read_config(path).to_dict() == base_config().to_dict()  # a warning would be an error
    assert read_accepted(path) == [{"field": "seed"}] and read_accepted(stored(tmp_path)) == []


def test_another_format_is_refused_naming_both(tmp_path):
    assert read_config(stored(tmp_path, format=1)).to_dict() == base_config().to_dict()
    with pytest.raises(ConfigError, match="has format 2, but this version of aliasfree_jax reads format 1"):
        read_config(stored(tmp_path, format=2))


@pytest.mark.parametrize("content", ["", "{", "[1]", "\0\0"])
def test_what_is_no_configuration(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="cannot read the stored configuration .*config.json: "):
        read_config(tmp_path / "config.json")


@pytest.mark.parametrize("changes", [{"data": 3}, {"seed": {"a": 1}}, {"seed": "x"}])
def test_fields_of_another_kind(tmp_path, changes):
    with pytest.raises(ConfigError, match="(?s)not written by this version of aliasfree_jax.*--config="):
        read_config(stored(tmp_path, **changes))


def test_differences():
    defaults = {"added": 5, "part": {"x": 1}}
    same = {"a": 1, "part": {"sizes": (1, 2), "x": 1.0}}, {"a": 1.0, "part": {"sizes": [1, 2]}, "added": 5}
    assert differences(*same, defaults) == {}
    found = differences({"a": 1, "free": {"b": 2}}, {"a": "1", "added": 6, "part": {"x": 1}}, defaults)
    assert found == {"a": (1, "1"), "free.b": (2, NOT_SET), "added": (5, 6)}
