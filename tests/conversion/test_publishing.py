"""Published directories: the written files, reading them back, and which results are shown."""

import functools
import json
import re
import shutil
from contextlib import closing
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import yaml
from hub_server import hub_at, serving
from safetensors.numpy import load_file

from aliasfree_jax import load_pretrained
from aliasfree_jax.__main__ import main
from aliasfree_jax.checkpoint import (
    ModelCard,
    RunCheckpoints,
    abstract_variables,
    keep_best,
    load_model,
    named_leaves,
    network_of,
    save_model,
    weights_sha256,
)
from aliasfree_jax.config import base_config
from aliasfree_jax.conversion import publishing
from aliasfree_jax.conversion.publishing import is_published, publish, read_published
from aliasfree_jax.conversion.readme import WORDS, readme
from aliasfree_jax.conversion.safetensors import safetensors_file
from aliasfree_jax.errors import CheckpointError, ConfigError, DataError
from aliasfree_jax.files import UnwritableError, write_json, write_whole
from aliasfree_jax.models.parts import KIND_OF_OPTION, PARTS
from aliasfree_jax.stored_config import to_store

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {"num_classes": 3, "depths": [1, 1], "widths": [2, 4]}
CARD = ModelCard(
    *(
        "resnet20_cifar_blur",
        OPTIONS,
        ("cat", "dög", "a\nb: c"),
        8,
        1,
        (0.3,),
        (0.35,),
        0.875,
        7,
        "configs/mine.py",
    ),
    exif=True,
)
INTEGER = {"pairs": 40, "consistency": 0.9725, "accuracy": 0.75, "about": "2 random shifts per image"}
COMMAND = (
    "python /home/me/secret/eval.py --config.data.path='/home/me/secret/my pets.tar' --workdir=runs/mine"
)
MEASURED = {"images": 20, "accuracy": 0.7125, "integer": INTEGER}
OTHER = {**MEASURED, "accuracy": 0.1}


@functools.cache
def shapes_of(card_json):
    card = ModelCard.from_json(json.loads(card_json))
    return abstract_variables(network_of(card), card.image_size, card.channels)


def variables_of(card=CARD, seed=0):
    rng = np.random.default_rng(seed)
    shapes = shapes_of(json.dumps(card.to_json()))
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype), shapes)


def of(card, variables=None, **results):
    """Results in the form of eval.py. Without variables: in the form of train.py."""
    about = {"card": card.to_json()} | ({"weights": weights_sha256(variables)} if variables else {})
    config = base_config()
    config.data.path = "/home/someone/secret/pets"
    return about | {"data": config.data.to_dict(), "command": COMMAND, **MEASURED, **results}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A converted network with its results. Tests must not change it."""
    model = save_model(tmp_path_factory.mktemp("weights") / "pets.v2", CARD, variables_of())
    write_json(model.with_name("pets.v2.eval.json"), of(CARD, variables_of()))
    return model


@pytest.fixture(scope="module")
def published_once(model, tmp_path_factory):
    return publish(model, tmp_path_factory.mktemp("published") / "pets")


@pytest.fixture
def published(published_once, tmp_path):
    return shutil.copytree(published_once, tmp_path / "published")


@pytest.fixture(scope="module")
def run_once(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    with closing(RunCheckpoints(run, keep=2)) as checkpoints:
        checkpoints.save(CARD, variables_of(), {"step": np.int32(7)})
    config = base_config()
    config.data.path, config.eval.shifts = "/data/pets.tar", 5
    write_json(run / "config.json", to_store(config, []))
    found = {"images": 20, "accuracy": 0.5, "raw_accuracy": 0.6, "raw_integer_consistency": 0.85}
    assert keep_best(run, CARD, variables_of(seed=1), found, "raw_accuracy", "validation")
    return run


@pytest.fixture
def run(run_once, tmp_path):
    """A run with a checkpoint of step 7 and a best network of step 7 with other values."""
    return shutil.copytree(run_once, tmp_path / "run")


def change(directory, file="config.json", **fields):
    path = directory / file
    write_json(path, json.loads(path.read_text()) | fields)


VARIANTS = {
    "batch statistics": CARD,
    "bfloat16": ModelCard.from_json(
        CARD.to_json() | {"options": OPTIONS | {"param_dtype": "bfloat16"}, "zero_pad": 1, "image_size": 10}
    ),
    "transformed": ModelCard.from_json(
        CARD.to_json() | {"model": "resnet20_cifar", "shift_invariant": {"sampler": "polyphase"}}
    ),
}


@pytest.mark.parametrize("card", VARIANTS.values(), ids=VARIANTS)
def test_a_published_network_is_the_same_bit_for_bit(card, tmp_path):
    model = save_model(tmp_path / "model", card, variables_of(card))
    write_json(tmp_path / "model.eval.json", of(card))
    written = publish(model, tmp_path / "new" / "published")
    (card_back, module, variables), before = read_published(written), load_model(model)
    assert card_back == before[0] == card and type(module) is type(before[1])
    assert jax.tree.structure(variables) == jax.tree.structure(before[2])
    assert weights_sha256(variables) == weights_sha256(before[2]) == weights_sha256(variables_of(card))
    found = load_file(written / "model.safetensors")
    assert {name: array.dtype for name, array in found.items()} == {
        name: leaf.dtype for name, leaf in named_leaves(variables).items()
    }
    assert any(name.startswith("batch_stats/") for name in found)
    kinds = {array.dtype.name for name, array in found.items() if name.startswith("params/")}
    assert kinds == {np.dtype(ml_dtypes.bfloat16).name if "param_dtype" in card.options else "float32"}


def test_rounded_parameters_take_half_the_bytes(model, tmp_path):
    rounded, directory = tmp_path / "rounded", tmp_path / "published"
    assert main(["convert", "--half", str(model), str(rounded)]) == 0
    _, _, before = load_model(model)
    card, _, variables = load_model(rounded)
    for name, leaf in named_leaves(variables["params"]).items():
        assert leaf.dtype == np.float32
        # float16 has 11 significant bits.
        np.testing.assert_allclose(leaf, named_leaves(before["params"])[name], rtol=2.0**-11)
    assert weights_sha256(variables["batch_stats"]) == weights_sha256(before["batch_stats"])
    with pytest.raises(DataError, match="there are no stored results for the weights"):
        publish(rounded, directory)  # those of the unrounded weights are not theirs
    write_json(rounded.with_name("rounded.eval.json"), of(card, variables))
    publish(rounded, directory)
    assert weights_sha256(read_published(directory)[2]) == weights_sha256(variables)
    stored = load_file(directory / "model.safetensors")
    kinds = {name.partition("/")[0]: set() for name in stored}
    for name, array in stored.items():
        kinds[name.partition("/")[0]].add(array.dtype.name)
    assert kinds == {"params": {"float16"}, "batch_stats": {"float32"}}


def test_parameters_that_half_precision_cannot_hold_are_refused(tmp_path, capsys):
    variables = variables_of()
    variables["params"]["head"]["bias"][0] = 1e5
    model = save_model(tmp_path / "large", CARD, variables)
    assert main(["convert", "--half", str(model), str(tmp_path / "rounded")]) == 2
    assert "a parameter has the size 1e+05. float16 holds at most 65504" in capsys.readouterr().err
    assert not (tmp_path / "rounded").exists()


def test_a_hub_gives_the_same_bits_back(published, tmp_path):
    files = {path.name: path.read_bytes() for path in published.iterdir()}
    with serving({"me/pets": {"main": files}}) as endpoint, hub_at(endpoint, tmp_path / "home"):
        card, _, variables = load_pretrained("hf://me/pets")
    assert (card, weights_sha256(variables)) == (CARD, weights_sha256(variables_of()))


def test_the_guide_loads_what_was_published(published_once, tmp_path, monkeypatch):
    """Runs the code of docs/weights.md with a network that has the page's classes."""
    change(shutil.copytree(published_once, tmp_path / "published/mine"), class_names=["0", "1", "2"])
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/weights.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (block,) = [block for block in blocks if 'load_pretrained("published/mine")' in block]
    assert "assert" in block
    exec(compile(block, "docs/weights.md", "exec"), {})


def test_the_two_descriptions_are_the_card_without_a_field_twice(published):
    network, images = (
        json.loads((published / name).read_text()) for name in ("config.json", "preprocessor_config.json")
    )
    assert {network.pop(name) for name in ("library_name", "format", "num_classes")} == {
        "aliasfree_jax",
        1,
        3,
    }
    assert not set(network) & set(images) and images["exif"] is True
    assert ModelCard.from_json(network | images) == CARD
    assert is_published(published)


def test_the_page_has_what_hubs_and_people_read(model, tmp_path):
    written = publish(model, tmp_path / "pets", 'other: "x" # y')
    page = (written / "README.md").read_text()
    _, header, body = page.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "license": 'other: "x" # y',
        "library_name": "aliasfree_jax",
        "pipeline_tag": "image-classification",
        "tags": ["jax", "flax", "image-classification"],
        "metrics": ["accuracy"],
    }
    for told in (
        "\n# pets\n",
        "images of 8 x 8 pixels and 1 channel. Its output is the logits of 3 classes",
        "The weights come from `configs/mine.py`, after 7 updates.",
        "`aliasfree_jax.create_model('resnet20_cifar_blur', num_classes=3, depths=[1, 1], widths=[2, 4])`",
        "| sampler | `blur` (kernel size 4, padding REFLECT) | a binomial filter blurs each feature map",
        'aliasfree_jax.load_pretrained("hf://OWNER/NAME")',
        "1. Turn the image upright by its EXIF orientation.",
        "2. Resize the shorter side to 9 pixels (bicubic, antialiased) and crop the centre to 8 x 8.",
        "3. Scale the values to 0 to 1, subtract 0.3 and divide by 0.35 (one number per channel).",
        "20 images, accuracy 71.25%",
        "| integer | 40 | 97.25% | 75.00% |",
        "- data: digits pets, split 'val', 20 images\n",
        "- command: python eval.py '--config.data.path=my pets.tar' --workdir=runs/mine\n",
    ):
        assert told in body
    assert "secret" not in page and "border" not in body
    (block,) = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    compile(block, "README.md", "exec")


def test_without_a_licence_the_page_names_none(published):
    assert "license" not in (published / "README.md").read_text()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"image_size": 384},
            "Resize the whole image to 384 x 384 pixels (bicubic, antialiased). This changes its aspect",
        ),
        ({"eval_view": "warp"}, "Resize the whole image to 8 x 8 pixels"),
        ({"image_size": 12, "zero_pad": 2}, "Pad the image with 2 pixels of zeros on every side."),
        (
            {"shift_invariant": {"sampler": "polyphase"}},
            "`aliasfree_jax.shift_invariant` transforms it with `sampler='poly",
        ),
        ({"options": {**OPTIONS, "sampler": {"name": "learned_polyphase", "inner": "blur"}}}, "(inner blur)"),
        ({"step": 0}, "The weights come from `configs/mine.py`.\n"),
        ({"task": "segmentation"}, "pipeline_tag: image-segmentation\ntags: [jax, flax, image-segmentation]"),
        ({"task": "segmentation"}, "Its output is the logits of 3 classes for every pixel; `config.json`"),
        ({"task": "regression"}, "An image-to-image network of the Python package"),
    ],
)
def test_the_page_says_what_is_particular(fields, told):
    card = ModelCard.from_json(CARD.to_json() | fields)
    assert told in readme("x", card, network_of(card), variables_of(), MEASURED, "")


def test_every_part_of_networks_has_words():
    assert {*KIND_OF_OPTION.values()} <= {*WORDS}
    for kind, words in WORDS.items():
        ours = {name for name, part in PARTS.get(kind, {}).items() if part.__module__.startswith("aliasfree")}
        assert ours <= set(words)  # besides the modules that other tests register


def accuracy_of(directory):
    (found,) = re.findall(r"20 images, accuracy ([\d.]+)%", (directory / "README.md").read_text())
    return float(found)


def test_results_of_eval_py_come_before_those_of_training(run, tmp_path):
    write_json(run / "results.json", of(CARD, accuracy=0.2))
    assert accuracy_of(publish(run, tmp_path / "one")) == 20
    write_json(run / "eval.json", of(CARD, variables_of(), accuracy=0.3))
    assert accuracy_of(publish(run, tmp_path / "two")) == 30
    assert accuracy_of(publish(run / "checkpoints" / "7", tmp_path / "three")) == 30
    (run / "eval.json").write_text("{")
    assert accuracy_of(publish(run, tmp_path / "four")) == 20


STEP = ModelCard.from_json(CARD.to_json() | {"step": 5})
CROP = ModelCard.from_json(CARD.to_json() | {"eval_crop_ratio": 1.0})


@pytest.mark.parametrize(
    ("results", "fault"),
    [
        (None, "there are no stored results for the weights in {run}. Measure"),
        (
            {"card": STEP.to_json(), **MEASURED},
            "to other weights: its step is 5, but these weights are from step 7.",
        ),
        ({"card": CROP.to_json(), **MEASURED}, "to other weights: the cards differ in eval_crop_ratio."),
        (
            {"card": CARD.to_json(), "weights": "0" * 64, **MEASURED},
            "the cards are equal, but the values differ.",
        ),
        (MEASURED, "its card is missing or unreadable"),
        ({"card": CARD.to_json()}, "eval.json has no results of eval.py"),
    ],
)
def test_results_of_other_weights_are_none(run, tmp_path, results, fault):
    if results:
        write_json(run / "eval.json", results)
    with pytest.raises(DataError, match="no stored results") as error:
        publish(run, tmp_path / "published")
    assert fault.format(run=run) in str(error.value) and not (tmp_path / "published").exists()
    command = f"python eval.py --workdir={run} --integer_shifts --fractional_shifts"
    assert str(error.value).endswith(f"Measure them first: {command}")


def test_outside_of_runs_the_command_needs_a_configuration(tmp_path):
    model = save_model(tmp_path / "model", CARD, variables_of())
    with pytest.raises(DataError, match=f"--checkpoint={model} .* --config=configs/....py$"):
        publish(model, tmp_path / "published")


def test_the_best_network_has_the_results_that_chose_it(run, tmp_path):
    write_json(run / "results.json", of(CARD))  # results of the last weights, whose card is equal
    write_json(run / "eval.json", of(CARD, variables_of()))
    written = publish(run / "best", tmp_path / "published")
    page = (written / "README.md").read_text()
    assert accuracy_of(written) == 60 and "| integer | 100 | 85.00% |" in page
    assert "- data: digits pets.tar, held out of the training split 'train'\n" in page
    assert "- chosen as: the best raw_accuracy of validation images\n" in page
    assert weights_sha256(read_published(written)[2]) == weights_sha256(variables_of(seed=1))
    write_json(run / "eval.json", of(CARD, variables_of(seed=1), accuracy=0.55))
    assert accuracy_of(publish(run / "best", tmp_path / "again")) == 55


def test_a_best_network_by_an_evaluation_of_ones_own_must_be_measured(run, tmp_path):
    write_json(run / "best/results.json", {"mine": 1.0, "chosen_by": "mine", "chosen_on": "test"})
    with pytest.raises(DataError, match=f"--checkpoint={run}/best --integer_shifts"):
        publish(run / "best", tmp_path / "published")


def test_an_existing_directory_is_left_alone(model, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="there exists already: choose another directory, or remove it"):
        publish(model, tmp_path / "there")
    assert not list((tmp_path / "there").iterdir())


def test_networks_of_user_files_stay_at_home(tmp_path):
    card = ModelCard.from_json(CARD.to_json() | {"model": "/gone/mine.py:make", "file_sha256": "0" * 64})
    save_model(tmp_path / "model", card, variables_of())
    with pytest.raises(
        ConfigError, match=r"made by your file /gone/mine.py:make. Others would have to execute"
    ):
        publish(tmp_path / "model", tmp_path / "published")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_what_could_not_be_written(model, tmp_path, monkeypatch, error):
    def full(path, content):
        if path.name == "README.md":
            raise error
        write_whole(path, content)

    monkeypatch.setattr(publishing, "write_whole", full)
    expected = UnwritableError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="published: No space left" if expected is UnwritableError else None):
        publish(model, tmp_path / "published")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"library_name": "timm"}, r"config.json belongs to the library 'timm'. Expected 'aliasfree_jax'"),
        (
            {"format": 2},
            "has format 2, but this version of aliasfree_jax reads format 1. Use the version that",
        ),
        ({"model": "os:system"}, "model is 'os:system', a file with code. It was refused"),
        (
            {"model": "resnet20_cifar_blurr"},
            "config.json: this version cannot make the network .* Did you mean 'resnet20_cifar_blur'",
        ),
        ({"model": ["basic"]}, r"model should be a string, got \['basic'\]"),
        (
            {"options": {"num_classes": 3, "depths": [1, 1], "widths": "xy"}},
            "config.json: this version cannot make the network",
        ),
        ({"options": None}, "options should be an object, got None"),
        ({"options": {"num_classes": None}}, "num_classes in options should be a whole number .*, got None"),
        ({"options": {"num_classes": 10**9}}, "should be a whole number of up to 1,000,000, got 1000000000"),
        ({"task": ["x"]}, r"task should be one of classification, .*, got \['x'\]"),
        ({"channels": True}, "channels should be a whole number, got True"),
        ({"class_names": ["a", 2, "c"]}, "class_names should be a list of names"),
        ({"num_classes": 4}, "published: num_classes is 4, expected 3"),
        ({"mean": [0.3]}, "both have mean. Remove it from one of them"),
        ({"file_sha256": "0" * 64}, "a file with code. It was refused"),
    ],
)
def test_a_wrong_description_is_refused(published, fields, fault):
    change(published, **fields)
    with pytest.raises(CheckpointError, match=fault):
        read_published(published)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"image_size": "8"}, "published: image_size must be a whole number, got '8'"),
        ({"mean": 0.3}, "mean must be a list of numbers"),
        ({"eval_crop_ratio": 0}, "eval_crop_ratio must lie in"),
        ({"interpolation": "cubic"}, "unknown interpolation 'cubic'"),
        ({"exif": 1}, "exif should be true or false, got 1"),
        ({"image_size": 1}, "this version cannot make the network .*: images of 1 x 1 are too small"),
        ({"zero_pad": 4}, "image_size is 8, expected 9"),
        ({"std": [1, 1]}, "the number of deviations .std. is 2, expected 1"),
    ],
)
def test_a_wrong_preparation_is_refused(published, fields, fault):
    change(published, "preprocessor_config.json", **fields)
    with pytest.raises(CheckpointError, match=fault):
        read_published(published)


def without(name):
    return lambda arrays: {other: array for other, array in arrays.items() if other != name}


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (without("params/head/kernel"), "missing: params/head/kernel"),
        (without("batch_stats/stem/norm/norm/mean"), "missing: batch_stats/stem/norm/norm/mean"),
        (lambda arrays: arrays | {"params/more": np.zeros(1)}, "unexpected: params/more"),
        (
            lambda arrays: arrays | {"params/head/bias": np.zeros(4)},
            r"params/head/bias \(4,\) \(expected \(3",
        ),
    ],
)
def test_every_tensor_is_used(published, changed, fault):
    weights = published / "model.safetensors"
    weights.write_bytes(safetensors_file(changed(load_file(weights))))
    with pytest.raises(CheckpointError, match=fault):
        read_published(published)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_named(published, name):
    (published / name).unlink()
    with pytest.raises(CheckpointError, match=f"published has no {name}: expected a directory that"):
        read_published(published)
    assert is_published(published) == (name != "config.json")


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000, b"\xff"])
def test_what_is_no_description_is_refused(published, content):
    data = content if isinstance(content, bytes) else content.encode()
    (published / "config.json").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"config.json (cannot be read|is not a JSON object)"):
        read_published(published)
    assert not is_published(published)


def test_runs_and_models_are_not_published(run, model, tmp_path):
    assert not any(map(is_published, (run, run / "best", model, tmp_path / "nowhere", model / "card")))


def test_the_command(model, tmp_path, capsys):
    target = tmp_path / "pets"
    assert main(["publish", str(model), str(target), "--license=mit"]) == 0
    told = capsys.readouterr().out
    assert "README.md, config.json, model.safetensors, preprocessor_config.json in" in told
    assert f"hf upload OWNER/NAME {target}" in told
    assert 'license: "mit"' in (target / "README.md").read_text()
    assert main(["publish", str(model), str(target)]) == 2
    assert main(["publish", str(model)]) == 2
    exists, arguments = capsys.readouterr().err.splitlines()
    assert (
        "pets exists already" in exists and "expected two arguments, RUN and the new DIRECTORY" in arguments
    )
    assert Path(target).is_dir()
