"""Experiments: matrix, protocols, stored results, runner and pages. All results but one are made up."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aliasfree_jax.commands import program
from aliasfree_jax.errors import ConfigError, DataError
from aliasfree_jax.evaluation.report.columns import percent
from aliasfree_jax.files import OccupiedError, sole_writer
from aliasfree_jax.models import create_model
from aliasfree_jax.validation import validate
from experiments import speed
from experiments.__main__ import chosen_runs, define, main, perform_missing, report, status
from experiments.matrix import AUGMENTATIONS, GATES, rows, runs
from experiments.page import DOCS, spread, write_pages
from experiments.pictures import PICTURES
from experiments.protocols import ACCURATE, FULL, LONGER, PROTOCOLS, REDUCED, configuration
from experiments.runner import cores_of, pending, perform_all
from experiments.stored import Store, rounded, settings, write_missing
from experiments.summary import exceptions, mean, summarize
from experiments.tables import DENSE, EXPERIMENTS, PACKAGED, README, WEIGHTS, write_tables
from experiments.worker import curve, training_seconds

ROOT = Path(__file__).parents[1]
APS, AFC = "resnet20-aps3-none-seed0", "resnet20-afc-none-seed0"


@pytest.fixture
def store(tmp_path):
    return Store(REDUCED, tmp_path / "results", tmp_path / "trainings")


def named(*names, protocol=REDUCED):
    found = {run.name: run for run in protocol.runs()}
    return [found[name] for name in names]


def made_up(store, run, accuracy=0.5, consistency=1.0):
    """Results with a given consistency under all shifts, and worst cases that equal the accuracy."""
    kind = {
        "pairs": 400,
        "consistency": consistency,
        "logit_change": {"mean": 1e-7, "max": 1e-6},
        "probability_change": {"mean": 1e-7, "max": 1e-6},
    }
    worst = {"pairs": 100, "worst_case_accuracy": 0.4}
    return {
        "protocol": store.protocol.name,
        "run": run.name,
        "seed": run.seed,
        "code": {"commit": "0123456789abcdef", "dirty": False},
        "machine": {
            "time": "2026-01-01 00:00:00 UTC",
            "processor": "P",
            "jax": "J",
            "python": "Y",
            "load": 1,
        },
        "parameters": 1234,
        "seconds": {"training": 120.0, "evaluation": 60.0},
        "results": {
            "images": 100,
            "accuracy": accuracy,
            **{name: copy.deepcopy(kind) for name in ("integer", "half_pixel", "crop")},
            "worst": {
                "images": 20,
                "accuracy": 0.4,
                "adversarial_integer": worst | {"worst_case_by_radius": [0.4] * 17},
                "adversarial_fraction": {"parts": {f"1/{n}": dict(worst) for n in (2, 3, 4)}},
                "adversarial_continuous": dict(worst),
            },
            "map": {"images": 8, "integer": 1e-7, "half_pixel": 1e-7},
        },
        "curve": {
            "train": {"epoch": [1.0, 2.0], "loss": [2.0, 1.0], "accuracy": [0.2, 0.4]},
            "eval": {"epoch": [2.0], "accuracy": [accuracy]},
        },
        "settings": settings(store.protocol, run),
    }


# The matrix.


def test_every_network_with_and_without_shifts_one_seed_after_the_other():
    found = REDUCED.runs()
    names = [run.name for run in found]
    assert len(set(names)) == len(names) == 2 * len(rows())
    assert [run.seed for run in found] == sorted(run.seed for run in found)
    # XCiTs are not rolled.
    counts = {"ResNet-18": (8, 8), "ResNet-20": (8, 8), "ConvNeXt": (4, 4), "XCiT": (6, 0)}
    for family, wanted in counts.items():
        ways = Counter(row.augmentation for row in rows() if row.family == family)
        assert (ways["none"], ways["shifts"]) == wanted


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_every_run_is_a_valid_configuration_of_a_network_that_there_is(protocol):
    for run in runs(protocol.rows, protocol.seeds[:1]):
        config = configuration(protocol, run, "data")
        validate(config)
        create_model(config.model.name, num_classes=10, **config.model.options.to_dict())
        for field, without in {"circular_shift": 0, "crop": "none"}.items():
            assert config.data[field] == AUGMENTATIONS[run.row.augmentation].get(field, without)
        assert config.data.flip


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_the_recipe_is_the_same_within_a_family(protocol):
    def recipe(run):
        config = configuration(protocol, run).to_dict()
        del config["model"], config["train"]["temperature"]
        for moved in ("circular_shift", "crop"):
            del config["data"][moved]
        return config

    found = list(runs(protocol.rows, protocol.seeds[:1]))
    for resnets in (True, False):
        recipes = [recipe(run) for run in found if run.row.family.startswith("ResNet") == resnets]
        assert all(one == recipes[0] for one in recipes)


def test_the_longer_protocol_is_the_reduced_one_but_for_its_length():
    def recipe(protocol, run):
        config = configuration(protocol, run).to_dict()
        for name in ("train_limit", "eval_limit"):
            del config["data"][name]
        del config["eval"]["every_epochs"], config["train"]["total_epochs"], config["train"]["temperature"]
        return config

    names = [run.row.name for run in LONGER.runs()]
    assert names == [
        *(f"convnext-{key}-none" for key in ("circular", "aps1", "afc", "afg")),
        *(f"xcit-{key}-none" for key in ("plain", "circular", "aps1", "aft", "afg", "afgs")),
        "convnext-circular-shifts",
    ]
    for run in LONGER.runs():
        assert recipe(LONGER, run) == recipe(REDUCED, run)


def test_the_accurate_protocol_has_full_networks_and_keeps_the_test_images_for_the_end():
    names = [run.row.name for run in ACCURATE.runs()]
    wanted = ["resnet20-plain", "resnet20-aps3", "convnext-circular", "convnext-afg"]
    assert names[:4] == [f"{name}-crops" for name in wanted] and len(names) == len(set(names)) == 12
    assert {f"resnet20-{key}-reflected" for key in ("plain", "afc", "afg")} < set(names)
    for run in ACCURATE.runs():
        config = configuration(ACCURATE, run)
        assert not {"depths", "widths"} & set(config.model.options)
        assert config.data.train_limit == config.data.eval_limit == config.data.validation == 0
        assert config.eval.every_epochs == 0 and not config.checkpoint.best


def test_only_learned_samplers_cool_down():
    cooled = {
        run.row.variant.key
        for run in FULL.runs()
        if configuration(FULL, run).train.temperature.schedule != "constant"
    }
    assert cooled == {"lps"}


def made_up_speed(store, row, ratio):
    """Writes a ratio of times as `experiments.speed` does."""
    first = speed.network_of(store.protocol, store.protocol.rows[0])
    stored = {"network": speed.network_of(store.protocol, row), "first": first, "ratio": ratio}
    write_missing(speed.path_of(store, row), lambda: stored)


# What is stored.


def test_results_are_of_their_settings_wherever_the_data_was(store):
    (run,) = named(APS)
    stored = made_up(store, run)
    stored["settings"]["config"]["data"]["path"] = "cifar.tar.xz"
    store.write(run, stored)
    assert store.done(run)["parameters"] == 1234
    assert store.done(named(AFC)[0]) is None
    assert status(store, run) == (
        "done     resnet20-aps3-none-seed0: accuracy 50.00%, 2026-01-01 00:00:00 UTC, code 0123456789"
    )


@pytest.mark.parametrize(
    ("section", "field", "told"),
    [("config", "seed", "config.seed: 7, not 0"), ("measuring", "points", "measuring.points: 7, not 32")],
)
def test_stale_results_are_told_and_made_again(store, section, field, told):
    (run,) = named(APS)
    stored = made_up(store, run)
    stored["settings"][section][field] = 7
    store.write(run, stored)
    assert store.done(run) is None
    assert status(store, run) == f"stale    {run.name}: {told}"
    assert pending(store, [run]) == [run]


def test_a_training_of_other_settings_or_code_is_another_directory(store):
    one, other = named(APS, APS.replace("none", "shifts"))
    assert len({store.workdir(run) for run in (one, other, replace(one, seed=1))}) == 3
    # Otherwise a changed network with equal parameter shapes would resume from old weights.
    assert replace(store, code="changed").workdir(one) != store.workdir(one)
    # Other measurements do not need another training.
    measured_otherwise = replace(store.protocol, measuring=FULL.measuring)
    assert replace(store, protocol=measured_otherwise).workdir(one) == store.workdir(one)


def test_results_of_another_run_or_protocol_are_refused(store):
    aps, afc = named(APS, AFC)
    shutil.copy(store.write(aps, made_up(store, aps)), store.path(afc))
    with pytest.raises(DataError, match=f"has the results of reduced/{APS}. Do not rename"):
        store.read(afc)
    store.path(aps).write_text("{")
    with pytest.raises(DataError, match="has no results of a run"):
        store.read(aps)


def test_numbers_are_short_and_all_but_one_is_not_one():
    assert rounded({"a": [0.123456789, 3, "x"], "b": 1e-7 / 3}) == {"a": [0.123457, 3, "x"], "b": 3.33333e-8}
    assert rounded(1.0) == 1 > rounded(1 - 1e-9)


def test_curves_are_means_over_epochs_and_time_is_that_of_updates():
    events = [
        {"split": "train", "step": 5, "epoch": 0.5, "loss": 3.0, "accuracy": 0.1},  # compiling: no speed
        {"split": "train", "step": 10, "epoch": 1.0, "loss": 1.0, "accuracy": 0.3, "images_per_second": 50.0},
        {"split": "test", "step": 10, "epoch": 1.0, "images": 9, "accuracy": 0.25},
        {"split": "train", "step": 15, "epoch": 1.5, "loss": 0.5, "accuracy": 0.5, "images_per_second": 25.0},
    ]
    found = curve(events)
    assert found["train"] == {"epoch": [1.0, 2.0], "loss": [2.0, 0.5], "accuracy": [0.2, 0.5]}
    assert found["eval"] == {"epoch": [1.0], "accuracy": [0.25]}
    assert training_seconds(events, batch=10) == 5 * 10 / 50 + 5 * 10 / 25


# The runner.


def starter(store, program):
    """Starts a Python program. Its arguments are a run's name, and the path and text of its results."""

    def start(run, log):
        text = json.dumps(made_up(store, run))
        command = [sys.executable, "-c", program, run.name, str(store.path(run)), text]
        with log.open("ab") as output:
            return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    return start


WRITE = (
    "import sys, pathlib; path = pathlib.Path(sys.argv[2]); path.parent.mkdir(parents=True, exist_ok=True); "
)


def test_a_failing_run_does_not_stop_the_others(store):
    chosen = named(APS, AFC, APS.replace("aps3", "lps"))
    fails = f"{WRITE}print('no luck'); 'afc' in sys.argv[1] and sys.exit(3); path.write_text(sys.argv[3])"
    failures = perform_all(store, chosen, 2, starter(store, fails))
    assert [run.name for run in pending(store, chosen)] == [AFC]
    assert [(failure.run.name, failure.status) for failure in failures] == [(AFC, 3)]
    assert failures[0].log.read_text() == "no luck\n"
    with pytest.raises(DataError, match=f"1 runs failed.*\n  {AFC} .exit status 3.: .*log.txt"):
        report(failures)


def test_a_process_that_leaves_no_results_has_failed(store):
    (run,) = named(APS)
    assert [f.run for f in perform_all(store, [run], 1, starter(store, "pass"))] == [run]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
def test_runs_get_cores_of_their_own(store):
    available = os.sched_getaffinity(0)
    shares = [cores_of(job, len(available)) for job in range(len(available))]
    assert set.union(*shares) == available
    assert all(len(share) == 1 for share in shares)
    assert cores_of(0, 1) == available
    assert len(cores_of(5, 1000)) == 1
    (run,) = named(APS)
    # The cores are set before the worker computes.
    tells = "import os, time; time.sleep(1); print(len(os.sched_getaffinity(0)))"
    (failure,) = perform_all(store, [run], len(available), starter(store, tells))
    assert failure.log.read_text() == "1\n"


def test_one_runner_at_a_time(store, tmp_path):
    results = store.path(named(APS)[0]).parent
    results.mkdir(parents=True)
    with sole_writer(results), pytest.raises(OccupiedError, match="another process writes to"):
        perform_missing(store, named(APS), 1, tmp_path)


def test_a_result_of_before_a_field_was_added_stays_valid(store):
    (run,) = named(APS)
    stored = made_up(store, run)
    del stored["settings"]["config"]["optimizer"]["layer_decay"], stored["settings"]["config"]["dry_run"]
    stored["settings"]["config"]["seed"] = 0.0
    store.write(run, stored)
    assert store.done(run) is not None
    stored["settings"]["config"]["optimizer"]["layer_decay"] = 0.5
    store.write(run, stored)
    assert store.why_stale(run, stored) == ["config.optimizer.layer_decay: 0.5, not 1.0"]


def test_processes_end_with_the_runner(store, monkeypatch):
    started = []
    start = starter(store, "import time; time.sleep(60)")

    def interrupted(_):
        raise KeyboardInterrupt

    def remembered(run, log):
        started.append(start(run, log))
        return started[-1]

    monkeypatch.setattr("experiments.runner.time.sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        perform_all(store, named(APS), 1, remembered)
    assert started[0].returncode == -15


def test_runs_are_chosen_by_name_and_seed():
    chosen = chosen_runs(REDUCED, "resnet20-a*-none", "1")
    assert [run.name for run in chosen] == [
        f"resnet20-{key}-none-seed1" for key in ("aps1", "aps3", "afc", "afg")
    ]
    assert len(chosen_runs(REDUCED, "*", "")) == len(REDUCED.runs())
    with pytest.raises(ConfigError, match="no run matches --only=resnet99"):
        chosen_runs(REDUCED, "resnet99", "")
    with pytest.raises(ConfigError, match="has the seeds 0,1, got --seeds=2"):
        chosen_runs(REDUCED, "*", "2")


def test_what_can_be_mended_is_said(store, tmp_path, capsys):
    with pytest.raises(ConfigError, match="there is no data at 'nowhere'"):
        perform_missing(store, named(APS), 1, Path("nowhere"))
    with pytest.raises(ConfigError, match="--jobs is the number of parallel runs, at least 1, got 0"):
        perform_missing(store, named(APS), 0, tmp_path)
    assert program(define, main, None)(["--only=resnet99"]) == 2
    assert "error: no run matches" in capsys.readouterr().err


# The page.


def test_two_seeds_are_both_shown_and_more_as_mean_and_deviation():
    def cell(*values):
        return spread(values, lambda value: percent(value).rstrip("%"))

    assert cell(0.5) == cell(0.5, 0.5) == "50.00"
    assert cell(0.5, 0.6) == "50.00, 60.00"
    assert cell(0.5, 0.6, 0.7) == "60.00 ± 10.00"
    assert cell(1.0, 1.0) == "100.00"
    assert cell(1.0, 0.999999) == "100.00, 99.99"  # 100 only without any exception
    assert cell(1.0, 1.0, 0.999999).startswith("99.99 ±")


def test_the_page_tells_means_missing_and_stale_runs_and_exceptions(store, tmp_path):
    aps, afc, lps, other = named(APS, AFC, APS.replace("aps3", "lps"), AFC.replace("seed0", "seed1"))
    store.write(aps, made_up(store, aps, consistency=0.9))
    store.write(afc, made_up(store, afc, accuracy=0.5))
    store.write(other, made_up(store, other, accuracy=0.6))
    stale = made_up(store, lps)
    stale["settings"]["config"]["seed"] = 7
    store.write(lps, stale)
    empty = Store(FULL, store.results, store.trainings)
    written = write_pages([store, empty], tmp_path)
    assert written[0] == tmp_path / "results" / "experiments_reduced.md"
    assert not (tmp_path / "results" / "experiments_full.md").exists()
    text = written[0].read_text()
    afc_row = "unshifted | 1,234 | 50.00, 60.00 | 100.00 | 100.00 | 100.00 | all shifts: holds |"
    assert f"| ResNet-20, alias-free | {afc_row}" in text
    aps_row = "unshifted | 1,234 | 50.00 | 90.00 | 90.00 | 90.00 | integer shifts: **1 exceptions** |"
    assert f"| ResNet-20, APS-3 | {aps_row}" in text
    assert (
        f"- {APS}: 40 of 400 random integer shifts change the class (largest change of a logit 1.0e-06)"
        in text
    )
    assert f"- `{lps.name}`: config.seed: 7, not 0" in text
    missing = text.split("\nMissing: ")[1].split(".\n")[0]
    assert missing.startswith("`resnet18-plain-none-seed0`,")
    assert missing.count("`") == 2 * (len(REDUCED.runs()) - 4)
    assert "1 to 2 of 2 seeds per row" in text
    for path in written[1:]:
        assert f"(../{path.name})" in text
        assert Image.open(path).size[0] > 1000


def test_the_pages_in_the_repository_are_those_of_its_results(tmp_path):
    (tmp_path / "docs/results").mkdir(parents=True)
    written = write_pages(docs=tmp_path / "docs")
    pages = [path for path in written if path.suffix == ".md"]
    assert [path.stem for path in pages] == [
        f"experiments_{name}" for name in ("reduced", "longer", "accurate")
    ]
    for path in pages:
        in_repository = DOCS / "results" / path.name
        assert in_repository.read_text() == path.read_text(), "run python -m experiments --page"
    names = (README, DENSE, EXPERIMENTS, WEIGHTS, PACKAGED)
    for name in names:
        shutil.copy(ROOT / name, tmp_path / name)
    assert write_tables(tmp_path) == [tmp_path / name for name in names]
    for name in names:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), "run python -m experiments --page"
    shutil.copy(pages[0], tmp_path / README)
    with pytest.raises(DataError, match="README.md needs the lines '<!-- measured: .*with a table between"):
        write_tables(tmp_path)


def test_protocols_never_share_a_table(store, tmp_path):
    full = Store(FULL, store.results, store.trainings)
    (run,) = named(AFC)
    store.write(run, made_up(store, run, accuracy=0.25))
    full.write(run, made_up(full, run, accuracy=0.75))
    pages = [path for path in write_pages([store, full], tmp_path) if path.suffix == ".md"]
    reduced, whole = (path.read_text() for path in pages)
    assert "| 25.00 |" in reduced and "| 75.00 |" not in reduced
    assert "| 75.00 |" in whole and "| 25.00 |" not in whole
    shutil.copy(full.path(run), store.path(run))
    with pytest.raises(DataError, match="has the results of full/"):
        write_pages([store, full], tmp_path)


def test_gates_have_a_table_of_their_own(store, tmp_path):
    gate = next(run for run in REDUCED.runs() if run.row.family == GATES)
    convnext = named("convnext-afc-none-seed0")[0]
    for run in (gate, convnext):
        store.write(run, made_up(store, run))
    first, second = write_pages([store], tmp_path)[0].read_text().split("## Candidate gates")
    assert gate.row.variant.name not in first
    assert f"| {gate.row.variant.name} |" in second and "| alias-free |" in second


@pytest.mark.parametrize("draw", [draw for _, draw in PICTURES.values()], ids=PICTURES)
def test_nothing_lies_outside_of_a_picture(store, draw):
    for level, key in ((0.1, "circular"), (0.4, "aps3"), (0.9, "afc")):
        (run,) = named(f"resnet20-{key}-none-seed0")
        stored = made_up(store, run, accuracy=level, consistency=level)
        stored["results"]["worst"]["adversarial_integer"]["worst_case_by_radius"] = [level] * 17
        stored["results"]["worst"]["accuracy"] = level
        stored["curve"]["train"]["loss"] = [2 * level, level]
        store.write(run, stored)
        made_up_speed(store, run.row, 3 * level)
    for axes in draw(summarize(store).summaries).axes:
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        # An endless line, such as the diagonal, has no points.
        lines = [line for line in axes.lines if type(line).__name__ != "AxLine"]
        points = [point for line in lines for point in line.get_xydata()]
        assert len({y for _, y in points}) >= 3
        assert all(left <= x <= right and low <= y <= high for x, y in points)


def test_times_of_steps_are_those_of_the_network(store):
    (run,) = named("resnet20-aps3-none-seed0")
    store.write(run, made_up(store, run))
    _, draw = PICTURES["cost"]
    (summary,) = summarize(store).summaries
    assert summary.step_ratio is None and draw([summary]) is None
    made_up_speed(store, run.row, 1.25)
    (summary,) = summarize(store).summaries
    assert summary.step_ratio == 1.25
    assert draw([summary]).axes[0].lines[0].get_xydata().tolist() == [[1.25, 50]]
    # The same network with other training images has the same time, a changed network has none.
    assert speed.step_ratio(store, replace(run.row, augmentation="shifts")) == 1.25
    changed = replace(run.row.variant, options={"filter_size": 5})
    assert speed.step_ratio(store, replace(run.row, variant=changed)) is None


def test_accuracies_are_drawn_where_epochs_were_measured(store):
    run, other = named(AFC, APS)
    stored = made_up(store, run)
    store.write(run, stored)
    _, draw = PICTURES["training"]
    assert len(draw(summarize(store).summaries).axes) == 1
    stored["curve"]["eval"] = {"epoch": [1.0, 2.0], "accuracy": [0.25, 0.5]}
    store.write(run, stored)
    loss, accuracy = draw(summarize(store).summaries).axes
    assert accuracy.get_ylabel() == "test accuracy, %"
    assert accuracy.lines[0].get_xydata().tolist() == [[1, 25], [2, 50]]
    store.write(other, made_up(store, other))  # measured once
    assert len(draw(summarize(store).summaries).axes) == 1


@pytest.mark.parametrize(
    ("name", "keys", "told"),
    [
        (AFC, ("adversarial_continuous",), "worst case over real-valued shifts: 2 of 20 images lost"),
        (AFC, ("adversarial_fraction", "parts", "1/3"), "multiples of 1/3 pixel: 2 of 20"),
        (AFC, ("adversarial_integer",), "all integer shifts: 2 of 20"),
        (APS, ("adversarial_integer",), "all integer shifts: 2 of 20"),
        (APS, ("adversarial_continuous",), None),  # not exact in theory
        ("resnet20-circular-none-seed0", ("adversarial_integer",), None),
    ],
)
def test_every_worst_case_that_is_promised_is_checked(store, name, keys, told):
    (run,) = named(name)
    stored = made_up(store, run)
    found = stored["results"]["worst"]
    for key in keys:
        found = found[key]
    found["worst_case_accuracy"] = 0.3
    store.write(run, stored)
    (summary,) = summarize(store).summaries
    lines = list(exceptions(summary))
    assert len(lines) == (told is not None)
    assert told is None or told in lines[0]


def test_a_mean_is_one_only_without_exception():
    assert mean([1.0, 1.0]) == 1
    assert mean([1.0, 1.0 - 1e-17 - 2**-53]) < 1


def write_images(data):
    """Writes ten classes of noise: 100 training and 20 test images."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 2)):
        for label in range(10):
            folder = data / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(image).save(folder / f"{number}.png")


@pytest.mark.slow
def test_steps_of_two_networks_take_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 1)
    rows = tuple(named(f"convnext-{key}-none-seed0")[0].row for key in ("circular", "afc"))

    def shorten(config):
        REDUCED.shorten(config)
        config.train.batch_size = 48  # tests have up to four devices

    small = Store(replace(REDUCED, rows=rows, shorten=shorten), tmp_path / "results")
    write_images(tmp_path / "data")
    speed.perform_missing(small, str(tmp_path / "data"))
    for row in rows:
        written = speed.path_of(small, row).read_text()
        times = json.loads(written)["milliseconds"]
        assert min(times.values()) > 0 and str(tmp_path) not in written
        assert speed.step_ratio(small, row) == pytest.approx(times["network"] / times["first"], rel=1e-5)


@pytest.mark.slow
def test_one_run_from_the_command_line_to_the_page(tmp_path):
    """Runs the reduced protocol on a few images, in a copy of the repository's files."""
    for package in ("experiments", "configs", "benchmarks"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("results"))
    (tmp_path / "docs/results").mkdir(parents=True)
    for name in (README, WEIGHTS, DENSE, EXPERIMENTS, PACKAGED):
        shutil.copy(ROOT / name, tmp_path / name)
    results = "experiments/results"
    shutil.copytree(ROOT / results, tmp_path / results, ignore=shutil.ignore_patterns("reduced", "longer"))
    write_images(tmp_path / "data")
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    # For aliasfree_jax. The copied packages come first.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}

    def command(*arguments):
        options = ["--only=convnext-afc-none", "--seeds=0", *arguments]
        return subprocess.run(
            [sys.executable, "-m", "experiments", *options],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
        )

    assert command("--list").stdout == "missing  convnext-afc-none-seed0\n"
    done = command("--data=data", "--jobs=2")
    logs = "\n".join(path.read_text() for path in tmp_path.glob("runs/**/log.txt"))
    assert done.returncode == 0, done.stderr + logs
    assert "0 of 1 runs are done, 1 to do" in done.stdout
    assert "1 of 1 runs are done, 0 to do" in command("--data=data").stdout
    file = tmp_path / "experiments" / "results" / "reduced" / "convnext-afc-none-seed0.json"
    stored = json.loads(file.read_text())
    assert file.stat().st_size < 30_000
    assert str(tmp_path) not in file.read_text()
    assert stored["results"]["integer"]["consistency"] == 1
    assert (
        stored["results"]["map"]["half_pixel"] < 1e-4
    )  # float32; aliasing networks have errors of 0.1 and more
    assert len(stored["results"]["worst"]["adversarial_integer"]["worst_case_by_radius"]) == 17
    # Two updates per epoch are logged only at checkpoints, every second epoch.
    assert stored["curve"]["train"]["epoch"] == [2.0, 4.0, 6.0, 8.0]
    assert command("--page").returncode == 0
    page = tmp_path / "docs/results/experiments_reduced.md"
    assert "| ConvNeXt, alias-free |" in page.read_text()
