"""The curves of a run: the data read, and the picture."""

import json
import sys

import numpy as np
import pytest
from absl import flags
from matplotlib.axes import Axes
from PIL import Image

from aliasfree_jax.errors import ConfigError, DataError, MissingPackageError
from aliasfree_jax.files import PathError
from aliasfree_jax.training.curves import define, draw_curves, main, read_series, smoothed


def curves(*typed):
    """The command `curves`."""
    values = flags.FlagValues()
    define(values)
    values.set_gnu_getopt(True)
    main(values, values(["curves", *typed])[1:])


@pytest.fixture
def run(tmp_path):
    """A run of 2 epochs with 40 steps, evaluated twice."""
    directory = tmp_path / "mine"
    directory.mkdir()
    events = []
    for i in range(1, 41):
        values = {"loss": 2 / (1 + i), "accuracy": 0.1, "learning_rate": 0.1}
        events.append({"step": i, "epoch": i / 20, "split": "train", **values})
    events += [{"step": i, "epoch": i / 20, "split": "validation", "accuracy": i / 80} for i in (20, 40)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return directory


def test_what_is_read(run):
    series = read_series(run)
    assert series["validation", "accuracy"] == ([1.0, 2.0], [0.25, 0.5])
    assert len(series["train", "loss"][0]) == 40 and ("validation", "loss") not in series


def test_consistency_and_raw_weights_are_drawn(run, tmp_path, monkeypatch):
    drawn, plot = {}, Axes.plot

    def noted(axes, *values, label="", **style):
        drawn[label] = list(values[1]), values[2] if len(values) > 2 else "", style.get("marker")
        return plot(axes, *values, label=label, **style)

    monkeypatch.setattr(Axes, "plot", noted)
    values = {"images": 9, "accuracy": 0.5, "integer_consistency": 0.8, "fractional_consistency": 0.7}
    values |= {"raw_accuracy": 0.4, "raw_integer_consistency": 0.6, "share": 0.5}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 50, "epoch": 2.5, "split": "validation", **values}) + "\n")
    draw_curves([run], tmp_path / "one.png")
    assert {label: of for label, of in drawn.items() if label.startswith("validation")} == {
        "validation": ([0.25, 0.5, 0.5], "-", "o"),
        "validation, raw weights": ([0.4], "--", "o"),
        "validation, integer": ([0.8], "-", "o"),
        "validation, fractional": ([0.7], "-", "s"),
        "validation, integer, raw weights": ([0.6], "--", "o"),
    }
    assert np.asarray(Image.open(tmp_path / "one.png")).shape[:2] == (480, 2400)  # a fourth panel
    draw_curves([run, run], tmp_path / "two.png")
    assert "mine, validation, integer" in drawn


def test_smoothing_keeps_constants_and_halves_a_step_in_its_time():
    epochs = [i / 100 for i in range(1001)]  # 10 epochs; the half-life is 0.2
    assert smoothed((epochs, [3.0] * 1001)) == pytest.approx([3.0] * 1001)
    step = smoothed((epochs, [1.0] + [0.0] * 1000))
    assert step[20] == pytest.approx(0.5) and step[40] == pytest.approx(0.25)
    assert smoothed(([1.0], [5.0])) == [5.0]


def test_the_command_draws(run, tmp_path, capsys):
    curves(str(run))
    assert f"wrote {run}/curves.png" in capsys.readouterr().out
    picture = np.asarray(Image.open(run / "curves.png").convert("L"))
    assert picture.shape == (480, 1800) and (picture < 200).mean() > 0.005  # the page is not blank
    curves(str(run), str(run), f"--output={tmp_path}/both.png")
    assert (tmp_path / "both.png").exists()


def test_the_command_takes_paths_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=f"{tmp_path}/run has no readable metrics"):
        curves("~/run")
    for typed in (["gs://bucket/run"], ["run", "--output=gs://bucket/x.png"]):
        with pytest.raises(PathError, match="is .gs://bucket/.*., an address: gs:// is not"):
            curves(*typed)
    with pytest.raises(ConfigError, match="expected directories of runs"):
        curves()


def test_a_directory_without_metrics(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path} has no readable metrics"):
        curves(str(tmp_path))
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match="has no values yet"):
        read_series(tmp_path)


def test_without_matplotlib(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'aliasfree_jax\[figures\]'"):
        curves(str(run))
