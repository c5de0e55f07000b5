"""Tests of the recording: every change of an array or a name is reported."""

import jax.numpy as jnp
import numpy as np
import recording


def told(before, after):
    return recording.compare(recording._named("of", before), recording._named("of", after))


def test_equal_bits_are_equal():
    array = np.arange(3, dtype=np.float32)
    assert (
        told({"a": array, "b": [0.1, "text", None]}, {"a": jnp.asarray(array), "b": [0.1, "text", None]})
        == []
    )


def test_every_change_is_told():
    array = np.arange(4, dtype=np.float32)
    nudged = np.nextafter(array, np.float32(9))
    for other in (nudged, array.astype(np.float64), array.reshape(2, 2), -array, np.zeros(4, np.float32)):
        (line,) = told({"a": array}, {"a": other})
        assert line.startswith("of/a: ") and ", now " in line
    assert told({"a": array}, {"b": array}) == ["missing: of/a", "new: of/b"]
    (line,) = told({"a": 0.1}, {"a": 0.1 + 1e-17 + 2e-17})
    assert "0.1, now 0.10000000000000003" in line


def test_names_that_changed_on_purpose(monkeypatch):
    monkeypatch.setattr(recording, "RENAMED", [(r"^of/old(\d)", r"of/new\1")])
    assert told({"old1": 1, "old2": 2}, {"new1": 1, "new2": 2}) == []
    assert len(told({"old1": 1}, {"new1": 2})) == 1
