import dataclasses
import errno
import json
import os
import shutil
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn

from aliasfree_jax import foreign
from aliasfree_jax.checkpoint import (
    ModelCard,
    RunCheckpoints,
    differences,
    how_chosen,
    keep_best,
    load_model,
    load_variables,
    named_leaves,
    newest_run,
    save_model,
    set_best_aside,
)
from aliasfree_jax.checkpoint.directory import UnreadableCheckpointError
from aliasfree_jax.errors import CheckpointError, ConfigError
from aliasfree_jax.models import create_model

CARD = ModelCard(
    model="dense",
    options={"features": 3, "sizes": [1, 2], "part": {"name": "x", "cutoff": 0.5}},
    class_names=("a", "b", "c"),
    image_size=4,
    channels=1,
    mean=(0.5,),
    std=(0.25,),
    eval_crop_ratio=0.875,
    step=7,
    origin="configs/x.py",
)


def test_a_card_knows_how_images_are_prepared():
    card = card_at(0, image_size=40, zero_pad=4, eval_view="crop", interpolation="bilinear", exif=True)
    assert card.preparation() == {
        "image_size": 32,
        "zero_pad": 4,
        "mean": (0.5,),
        "std": (0.25,),
        "eval_view": "crop",
        "eval_crop_ratio": 0.875,
        "interpolation": "bilinear",
        "exif": True,
    }
    assert ModelCard.from_json(json.loads(json.dumps(card.to_json()))) == card
    assert (CARD.zero_pad, CARD.eval_view, CARD.interpolation, CARD.exif) == (0, "auto", "bicubic", False)


class Net(nn.Module):
    features: int = 3

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(images.mean((1, 2)))
        return nn.Dense(self.features, name="head")(x)


@pytest.fixture(autouse=True)
def only_network(monkeypatch):
    monkeypatch.setattr(foreign, "create_model", lambda name, **options: Net(options["features"]))


def variables_of(card=CARD, seed=0):
    return Net(card.options["features"]).init(jax.random.key(seed), jnp.ones((1, 4, 4, 1)))


def state_of(step):
    moments = ({"m": jnp.full((2, 3), float(step))}, (jnp.int32(step),))
    return {"step": jnp.int32(step), "opt_state": moments, "key": jax.random.key(step)}


def abstract(tree):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[1])
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def card_at(step, **changes):
    return ModelCard.from_json(CARD.to_json() | {"step": step} | changes)


@pytest.fixture
def run(tmp_path):
    """A run with checkpoints of steps 2 and 4. Step 4 has seed 4."""
    with closing(RunCheckpoints(tmp_path / "run", keep=2)) as checkpoints:
        for step in (1, 2, 4):
            checkpoints.save(card_at(step), variables_of(seed=step), state_of(step))
    return tmp_path / "run"


def restore(run, variables=None, state=None, **changes):
    with closing(RunCheckpoints(run, keep=2)) as checkpoints:
        return checkpoints.restore(
            card_at(0, **changes), abstract(variables or variables_of()), abstract(state or state_of(0))
        )


def test_card_survives_json():
    assert ModelCard.from_json(json.loads(json.dumps(CARD.to_json()))) == CARD


def test_cards_with_more_and_fewer_fields():
    """Cards of other versions with the same format."""
    fields = CARD.to_json()
    with pytest.warns(
        UserWarning, match="does not know these fields of the model card and ignores them: average, newer"
    ):
        assert ModelCard.from_json(fields | {"average": 1, "newer": [1]}) == CARD
    with pytest.raises(CheckpointError, match="the model card lacks channels, mean. Another version of"):
        ModelCard.from_json({k: v for k, v in fields.items() if k not in ("mean", "channels")})

    @dataclasses.dataclass(frozen=True)
    class Later(ModelCard):
        interpolation: str = "bicubic"

    assert Later.from_json(fields).interpolation == "bicubic"


def test_save_and_load_a_model(tmp_path):
    assert save_model(tmp_path / "model", CARD, variables_of()) == tmp_path / "model"
    card, module, variables = load_model(tmp_path / "model")
    assert card == CARD and module == Net(3)
    assert_equal(variables, variables_of())
    with pytest.raises(CheckpointError, match="model exists already. Choose another directory"):
        save_model(tmp_path / "model", CARD, variables_of())
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="the new directory is .*, but its directory cannot be made"):
        save_model(tmp_path / "file" / "model", CARD, variables_of())


def test_a_model_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orbax.checkpoint.Checkpointer.save", full)
    with pytest.raises(CheckpointError, match="cannot write .*/model: .*No space left on device.* Free disk"):
        save_model(tmp_path / "model", CARD, variables_of())


@pytest.mark.parametrize(("below", "step"), [("", 4), ("checkpoints", 4), ("checkpoints/2", 2)])
def test_load_from_a_run(run, below, step):
    card, _, variables = load_model(run / below)
    assert card.step == step
    assert_equal(variables, variables_of(seed=step))


def test_a_run_keeps_the_newest(run):
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["2", "4"]


def test_restore_gives_structure_and_placement(run):
    step, variables, state = restore(run)
    assert step == 4
    assert_equal(variables, variables_of(seed=4))
    assert_equal(state, state_of(4))
    assert {leaf.devices().pop() for leaf in jax.tree.leaves(state)} == {jax.devices()[1]}


def test_arrays_may_be_deleted_after_save_returns(tmp_path):
    # Donation deletes or overwrites buffers during the write.
    with closing(RunCheckpoints(tmp_path, keep=1)) as checkpoints:
        variables, state = jax.tree.map(jnp.copy, (variables_of(), state_of(1)))
        checkpoints.save(card_at(1), variables, state)
        for leaf in jax.tree.leaves((variables, state)):
            leaf.delete()
    assert_equal(load_model(tmp_path)[2], variables_of())


def test_restore_another_network(run):
    wide = variables_of(card_at(0, options={"features": 5}))
    with pytest.raises(CheckpointError) as error:
        restore(run, wide)
    assert "checkpoints/4 has another model or optimizer" in str(error.value)
    assert (
        "wrong shape: variables/params/head/bias (3,) (expected (5,)), variables/params/head/kernel"
        in str(error.value)
    )
    with pytest.raises(
        CheckpointError, match="has the model 'dense', but the configuration asks for 'other'"
    ):
        restore(run, model="other")


def test_restore_a_network_whose_file_has_moved(tmp_path):
    with closing(RunCheckpoints(tmp_path, keep=1)) as checkpoints:
        checkpoints.save(card_at(2, model="a.py:make", file_sha256="ab"), variables_of(), state_of(2))
    assert restore(tmp_path, model="b.py:make", file_sha256="ab")[0] == 2
    with pytest.raises(
        CheckpointError, match="has the model 'a.py:make', but the configuration asks for 'b.py"
    ):
        restore(tmp_path, model="b.py:make", file_sha256="cd")


def test_variables_are_read_without_their_network(run, monkeypatch):
    monkeypatch.setattr(foreign, "create_model", None)
    card, variables = load_variables(run)
    assert card.step == 4
    assert_equal(variables, variables_of(seed=4))
    shutil.rmtree(run / "checkpoints/4/variables")
    with pytest.raises(
        CheckpointError, match="checkpoints/4 is damaged or incomplete.*previous one is step 2"
    ):
        load_variables(run)


def test_restore_another_optimizer(run):
    state = state_of(0) | {"trace": jnp.zeros(2)}
    del state["step"]
    with pytest.raises(CheckpointError, match=r"missing: state/trace\n  unexpected: state/step\n"):
        restore(run, state=state)


def test_load_a_model_whose_card_names_another(tmp_path):
    save_model(tmp_path / "model", card_at(0, options={"features": 9}), variables_of())
    with pytest.raises(
        CheckpointError, match=r"wrong shape: variables/params/head/bias \(3,\) \(expected \(9,\)\)"
    ):
        load_model(tmp_path / "model")


def test_load_a_network_that_this_version_does_not_have(tmp_path, monkeypatch):
    options = {"blend": {"start": "convnext", "share": 0.5}}  # an option of an older version
    card = dataclasses.replace(CARD, model="convnext_afc_micro", options=options)
    save_model(tmp_path / "m", card, variables_of())
    monkeypatch.setattr(foreign, "create_model", create_model)
    with pytest.raises(
        CheckpointError, match="this version cannot make the network in .*m: unknown option .*'blend'"
    ):
        load_model(tmp_path / "m")


def test_differences_lists_at_most_six_a_kind():
    text = differences({str(i): (1,) for i in range(20)}, {"x": (1,)})
    assert text == "  missing: 0, 1, 10, 11, 12, 13, ... (20 in all)\n  unexpected: x"


def remove_arrays(step):
    shutil.rmtree(step / "variables" / "d")


def truncate_arrays(step):
    for path in (step / "variables" / "d").iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove_card(step):
    shutil.rmtree(step / "card")


def truncate_card(step):
    (step / "card/metadata").write_text((step / "card/metadata").read_text()[:40])


def empty(step):
    shutil.rmtree(step)
    step.mkdir()


# After a failed restore, Orbax does not wait for its other reads.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [remove_arrays, truncate_arrays, remove_card, truncate_card, empty])
def test_a_damaged_newest_checkpoint_is_set_aside_for_the_one_before(run, damage):
    damage(run / "checkpoints/4")
    message = r"checkpoints/4 is damaged or incomplete: .* The previous one is step 2\."
    with pytest.raises(CheckpointError, match=message):
        load_model(run)  # reading only a network raises, and the user decides
    with pytest.warns(UserWarning, match=message + r" Renamed it to .*/4.damaged. Continuing from step 2\."):
        step, variables, _ = restore(run)
    assert step == 2
    assert_equal(variables, variables_of(seed=2))
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["2", "4.damaged"]
    # The same step can be written and damaged again.
    with closing(RunCheckpoints(run, keep=2)) as checkpoints:
        checkpoints.save(card_at(4), variables_of(seed=4), state_of(4))
    damage(run / "checkpoints/4")
    with pytest.warns(UserWarning, match=r"4.damaged2. Continuing from step 2"):
        restore(run)


def replace_by_a_loop(path):
    """A link to itself, which the system never opens."""
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("files", ["card/metadata", "variables/d/*", "variables/manifest.ocdbt"])
def test_an_unreadable_checkpoint_is_left_as_it_is(run, files):
    """Every reader raises it, and training does not continue from older weights."""
    for path in list((run / "checkpoints/4").glob(files)):
        replace_by_a_loop(path)
    for read in (load_model, restore):
        with pytest.raises(
            UnreadableCheckpointError, match=r"checkpoints/4 cannot be read \(Too many levels"
        ):
            read(run)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["2", "4"]


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ESTALE, os.strerror(errno.ESTALE)),
        ValueError(
            'PERMISSION_DENIED: Error reading "x": Failed to open: Permission denied [os_error_code=13]'
        ),
        ValueError("UNKNOWN: Error reading local file: Input/output error [os_error_code='5']"),
        ValueError(f"RESOURCE_EXHAUSTED: {os.strerror(errno.EMFILE)}"),
    ],
)
def test_whatever_the_system_refuses_is_unreadable(run, monkeypatch, error):
    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr(ocp.StandardCheckpointer, "restore", refuse)
    with pytest.raises(UnreadableCheckpointError, match="checkpoints/4 cannot be read .*nothing was changed"):
        restore(run)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["2", "4"]


def test_a_directory_of_checkpoints_that_cannot_be_listed(tmp_path):
    (tmp_path / "checkpoints").symlink_to("checkpoints")
    with pytest.raises(UnreadableCheckpointError, match="checkpoints cannot be read: .*symbolic links"):
        load_model(tmp_path)


def test_a_best_value_that_cannot_be_read_is_not_replaced(tmp_path):
    keep_best(tmp_path, card_at(1), variables_of(), {"accuracy": 0.9}, "accuracy", "test")
    replace_by_a_loop(tmp_path / "best/results.json")
    with pytest.raises(CheckpointError, match="cannot keep the best network in .*symbolic links"):
        keep_best(tmp_path, card_at(2), variables_of(), {"accuracy": 0.1}, "accuracy", "test")
    assert load_model(tmp_path / "best")[0].step == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_whose_checkpoints_are_all_damaged_is_left_as_it_is(run):
    for step in (2, 4):
        truncate_card(run / f"checkpoints/{step}")
    with pytest.raises(CheckpointError, match=r"checkpoints/4 is damaged .* The previous one is step 2"):
        restore(run)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["2", "4"]


def test_the_best_network_is_kept_apart(tmp_path):
    def offer(step, value):
        return keep_best(
            tmp_path, card_at(step), variables_of(seed=step), {"accuracy": value}, "accuracy", "test"
        )

    assert offer(1, 0.5) and not offer(2, 0.4) and not offer(3, 0.5)
    assert load_model(tmp_path / "best")[0].step == 1
    assert offer(4, 0.6)
    card, _, variables = load_model(tmp_path / "best")
    assert card.step == 4
    assert_equal(variables, variables_of(seed=4))
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert not keep_best(tmp_path, card_at(5), variables_of(), {"accuracy": np.nan}, "accuracy", "test")


def test_the_best_network_says_how_it_was_chosen(tmp_path):
    def offer(step, value, metric, images):
        results = {"accuracy": value, "raw_accuracy": value}
        return keep_best(tmp_path, card_at(step), variables_of(seed=step), results, metric, images)

    assert offer(1, 0.9, "accuracy", "test")
    # Results on other images or by another metric are not compared.
    assert offer(2, 0.5, "accuracy", "validation") and not offer(3, 0.4, "accuracy", "validation")
    stored = json.loads((tmp_path / "best/results.json").read_text())
    chosen = {"chosen_by": "accuracy", "chosen_on": "validation"}
    assert stored == {"accuracy": 0.5, "raw_accuracy": 0.5, **chosen}
    assert how_chosen(tmp_path / "best") == "the best accuracy of validation images"
    assert how_chosen(tmp_path) == ""
    assert offer(4, 0.3, "raw_accuracy", "validation")


def test_the_best_network_of_an_earlier_run_is_out_of_the_way(tmp_path):
    assert set_best_aside(tmp_path) == []
    for name in ("best.earlier", "best.earlier2"):
        keep_best(tmp_path, card_at(1), variables_of(), {"accuracy": 0.9}, "accuracy", "test")
        (told,) = set_best_aside(tmp_path)
        assert told.endswith(f"belongs to an earlier run; renamed to {tmp_path}/{name}")
        assert load_model(tmp_path / name)[0].step == 1
    assert keep_best(tmp_path, card_at(2), variables_of(), {"accuracy": 0.1}, "accuracy", "test")


@pytest.mark.parametrize("moment", ["writing", "between the renamings", "before the clean-up"])
def test_the_best_network_survives_a_death(tmp_path, moment):
    def offer(step, value):
        return keep_best(
            tmp_path, card_at(step), variables_of(seed=step), {"accuracy": value}, "accuracy", "test"
        )

    offer(1, 0.5)
    if moment == "writing":
        (tmp_path / "best.new/variables").mkdir(parents=True)
    elif moment == "between the renamings":
        (tmp_path / "best").rename(tmp_path / "best.old")
    else:
        shutil.copytree(tmp_path / "best", tmp_path / "best.old")
    assert not offer(2, 0.4)  # the best network is known
    assert load_model(tmp_path / "best")[0].step == 1
    assert offer(3, 0.6)
    assert load_model(tmp_path / "best")[0].step == 3
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_best_network_that_cannot_be_written(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(CheckpointError, match="cannot keep the best network in .*/run/best"):
        keep_best(tmp_path / "run", card_at(1), variables_of(), {"accuracy": 1.0}, "accuracy", "test")


def test_an_unfinished_checkpoint_is_no_checkpoint(run):
    (run / "checkpoints/4").rename(run / "checkpoints/9.orbax-checkpoint-tmp-0")
    assert restore(run)[0] == 2


@pytest.mark.parametrize("number", [0, 2])
def test_a_checkpoint_of_another_format(run, number):
    path = run / "checkpoints/4/card/metadata"
    path.write_text(path.read_text().replace('"format": 1', f'"format": {number}'))
    for read in (load_model, restore):
        with pytest.raises(CheckpointError, match=f"has format {number}, .* aliasfree_jax reads format 1"):
            read(run)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["2", "4"]


def test_paths_that_hold_no_checkpoint(tmp_path):
    (tmp_path / "weights.pth").touch()
    with pytest.raises(CheckpointError, match="nowhere: there is no such file or directory"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"weights.pth is a file.*Convert original weights"):
        load_model(tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*: expected a run"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*/checkpoints"):
        restore(tmp_path)


def test_paths_are_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_model("~/model", CARD, variables_of())
    assert load_model("~/model")[0] == load_model(tmp_path / "model")[0] == CARD
    for use in (load_model, lambda path: save_model(path, CARD, variables_of())):
        with pytest.raises(ConfigError, match="the path is 'gs://bucket/x', an address"):
            use("gs://bucket/x")


def test_newest_run(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"no checkpoint under .*/\*/checkpoints/. Make one with: python train.py"
    ):
        newest_run(tmp_path)
    for name, time in (("old", 100), ("new", 300), ("empty", 900)):
        step = tmp_path / name / "checkpoints" / "5"
        step.mkdir(parents=True)
        os.utime(step, (time, time))
    (tmp_path / "empty/checkpoints/5").rename(tmp_path / "empty/checkpoints/5.orbax-checkpoint-tmp-0")
    assert newest_run(tmp_path) == tmp_path / "new"


def test_named_leaves_are_paths():
    assert list(named_leaves(variables_of())) == [
        "batch_stats/norm/mean",
        "batch_stats/norm/var",
        "params/head/bias",
        "params/head/kernel",
        "params/norm/bias",
        "params/norm/scale",
    ]
