"""Files beside weights: config.json of timm and transformers, and the preparation of images."""

import json

import pytest

from aliasfree_jax.conversion.library_config import CONFIG, PREPROCESSOR, read_library_config
from aliasfree_jax.errors import ConversionError

# The form of timm 1.0.31 and transformers 5.24.0.
TIMM = {
    "architecture": "resnetblur50",
    "num_classes": 3,
    "num_features": 2048,
    "global_pool": "avg",
    "label_names": ["cat", "dog", "eel"],
    "model_args": {"num_classes": 3, "in_chans": 3, "global_pool": "avg"},
    "pretrained_cfg": {
        "tag": "bt_in1k",
        "input_size": [3, 288, 288],
        "test_input_size": [3, 320, 320],
        "interpolation": "bilinear",
        "crop_pct": 0.95,
        "test_crop_pct": 1.0,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
        "first_conv": "conv1",
        "classifier": "fc",
    },
}
TRANSFORMERS = {
    "architectures": ["ConvNextForImageClassification"],
    "depths": [1, 1, 2, 1],
    "dtype": "float32",
    "hidden_sizes": [8, 16, 24, 32],
    "id2label": {"0": "cat", "2": "eel", "1": "dog"},
    "label2id": {"cat": 0, "dog": 1, "eel": 2},
    "layer_norm_eps": 1e-12,
    "model_type": "convnext",
    "transformers_version": "5.24.0",
}
PREPARED = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "size": {"shortest_edge": 224},
    "crop_pct": 0.875,
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "image_processor_type": "ConvNextImageProcessor",
}


@pytest.fixture
def read(tmp_path):
    """Writes the files and reads them with `read_library_config`."""

    def found(config, preprocessor=None):
        for name, content in ((CONFIG, config), (PREPROCESSOR, preprocessor)):
            if content is not None:
                text = content if isinstance(content, str) else json.dumps(content)
                (tmp_path / name).write_text(text)
        return read_library_config(tmp_path / "model.safetensors")

    return found


def test_timm(read):
    found = read(TIMM)
    assert (found.source, found.model, found.options) == ("timm", "resnetblur50", {"in_chans": 3})
    assert found.class_names == ("cat", "dog", "eel") and not found.notes
    assert found.prepared == {
        **{"image_size": 288, "eval_crop_ratio": 0.95, "interpolation": "bilinear", "eval_view": "crop"},
        **{"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)},
    }


def test_older_files_of_timm_have_all_fields_at_the_top_and_may_lack_some(read):
    old = {**TIMM, **TIMM["pretrained_cfg"]}
    for name in ("pretrained_cfg", "model_args", "crop_pct", "mean", "label_names"):
        del old[name]
    found = read({**old, "model_type": "timm_wrapper", "architectures": ["TimmWrapperModel"]})
    assert (found.source, found.model, found.options) == ("timm", "resnetblur50", {})
    assert found.prepared["image_size"] == 288 and found.prepared["eval_crop_ratio"] == 0.875
    assert found.prepared["mean"] == (0.485, 0.456, 0.406) and found.class_names == ()
    assert found.notes == [
        "the files beside the weights do not state eval_crop_ratio, mean, so the defaults of timm are used"
    ]


@pytest.mark.parametrize(
    ("changes", "view", "note"),
    [
        ({"crop_mode": "squash", "crop_pct": 1.0}, "warp", None),
        ({"crop_mode": "squash"}, "warp", r"crop_mode 'squash' and crop_pct 0.95 are not available.*'warp'"),
        ({"crop_mode": "border"}, "crop", r"crop_mode 'border'.*eval_view 'crop'"),
        ({"input_size": [3, 192, 256]}, "crop", r"images of 192 x 256 .* square images of 192"),
        (
            {"interpolation": "lanczos"},
            "crop",
            "interpolation 'lanczos' is not available, so bicubic is used",
        ),
    ],
)
def test_what_cannot_be_done_as_stated_is_noted(read, changes, view, note):
    found = read({**TIMM, "pretrained_cfg": {**TIMM["pretrained_cfg"], **changes}})
    assert found.prepared["eval_view"] == view
    assert len(found.notes) == (note is not None)
    if note:
        with pytest.raises(AssertionError, match=note):
            raise AssertionError(found.notes[0])


def test_another_pooling_is_passed_on(read):
    assert read({**TIMM, "global_pool": "max", "model_args": {}}).options == {"global_pool": "max"}


@pytest.mark.parametrize("arguments", [{}, {"num_classes": 0}])
def test_a_network_without_a_head_is_said_to_have_no_classes(read, arguments):
    assert read({**TIMM, "num_classes": 0, "model_args": arguments}).options == {"num_classes": 0}


def test_names_of_classes_by_number_may_have_gaps(read):
    assert read({**TIMM, "label_names": {"2": "eel", "0": "cat"}}).class_names == ("cat", "1", "eel")


def test_transformers(read):
    found = read(TRANSFORMERS, PREPARED)
    assert (found.source, found.model) == ("transformers", "ConvNextForImageClassification")
    assert found.options == TRANSFORMERS
    assert found.class_names == ("cat", "dog", "eel") and not found.notes
    assert found.prepared == {
        **{"image_size": 224, "eval_crop_ratio": 0.875, "interpolation": "bicubic", "eval_view": "auto"},
        **{"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    }


def test_other_processors_of_transformers(read):
    exact = {**PREPARED, "size": {"height": 256, "width": 256}, "image_processor_type": "ViTImageProcessor"}
    found = read(TRANSFORMERS, exact).prepared
    assert (found["image_size"], found["eval_view"], found["eval_crop_ratio"]) == (256, "warp", 1.0)
    assert read(TRANSFORMERS, {**PREPARED, "size": 384}).prepared["image_size"] == 384
    cropping = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224}}
    found = read(TRANSFORMERS, {**PREPARED, **cropping}).prepared
    assert (found["image_size"], found["eval_view"], found["eval_crop_ratio"]) == (224, "crop", 0.875)
    for other in ({"size": {"height": 256, "width": 224}}, {"do_center_crop": True, "crop_size": 224}):
        (note,) = read(TRANSFORMERS, {**exact, **other}).notes
        assert "is not available, so images are warped to 256 x 256" in note
    notes = read(TRANSFORMERS, {**PREPARED, "do_normalize": False}).notes
    assert notes and "do_normalize of preprocessor_config.json is not available" in notes[0]


def test_without_preprocessor_the_librarys_defaults_are_assumed_aloud(read):
    found = read(TRANSFORMERS)
    assert found.prepared["mean"] == (0.5, 0.5, 0.5) and found.prepared["image_size"] == 384
    assert "do not state image_size, eval_crop_ratio, interpolation, mean, std, so" in found.notes[0]


@pytest.mark.parametrize("config", [None, {}, {"model_type": "convnext"}, {"architectures": []}])
def test_no_network_is_named(read, config):
    assert read(config) is None


@pytest.mark.parametrize(
    ("config", "preprocessor", "fault"),
    [
        ("{", None, "config.json cannot be read as JSON"),
        ("[" * 100_000, None, "config.json cannot be read as JSON"),
        ("[1]", None, "config.json is not a JSON object"),
        ({**TIMM, "pretrained_cfg": [1]}, None, "has an invalid value"),
        ({**TIMM, "model_args": 3}, None, "has an invalid value"),
        ({**TIMM, "pretrained_cfg": {"input_size": [3, "x", "x"]}}, None, "has an invalid value: .*'x'"),
        ({**TIMM, "pretrained_cfg": {"crop_pct": -1}}, None, "has an invalid value: .*positive"),
        ({**TIMM, "pretrained_cfg": {"crop_pct": 1.5}}, None, "has an invalid value: .*the ratio must be"),
        ({**TIMM, "pretrained_cfg": {"std": [0, 1, 1]}}, None, "has an invalid value: .*positive"),
        (
            {**TIMM, "pretrained_cfg": {"std": []}},
            None,
            "has an invalid value: .*one finite number per channel",
        ),
        (
            {**TIMM, "pretrained_cfg": {"mean": [float("nan")]}},
            None,
            "value: .*one finite number per channel",
        ),
        ({**TRANSFORMERS, "architectures": ["A", "B"]}, None, "has an invalid value"),
        ({**TRANSFORMERS, "id2label": {"7": "cat"}}, None, "has an invalid value"),
        (TRANSFORMERS, {**PREPARED, "size": {"longest_edge": 5}}, None),
        (TRANSFORMERS, {**PREPARED, "size": "large"}, "has an invalid value"),
        (TRANSFORMERS, {**PREPARED, "image_mean": 0.5}, "has an invalid value"),
    ],
)
def test_unsound_files(read, config, preprocessor, fault):
    if fault is None:  # only a note that the size is not stated
        assert "image_size" in read(config, preprocessor).notes[0]
        return
    with pytest.raises(ConversionError, match=fault):
        read(config, preprocessor)
