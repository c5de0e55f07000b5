"""Tests of pictures and the page with known results."""

import base64
import io
import json
import sys
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import alias_free, labelled, smooth_noise, strided
from flax import linen as nn
from in_process import run
from PIL import Image

from aliasfree_jax.config import base_config
from aliasfree_jax.data import ArraySource
from aliasfree_jax.errors import ConfigError, DataError, MissingPackageError
from aliasfree_jax.evaluation.evaluator import evaluate
from aliasfree_jax.evaluation.measurements import shift_plane as plane_measurement
from aliasfree_jax.evaluation.measurements import slide as slide_measurement
from aliasfree_jax.evaluation.report import page as command
from aliasfree_jax.evaluation.report.gallery import PICTURES, draw_pictures, pictures_of
from aliasfree_jax.evaluation.report.page import page, write_report
from aliasfree_jax.evaluation.report.pictured import (
    IMAGE,
    Evaluated,
    feature_maps,
    feature_results,
    image_results,
    moved_back,
    read_results,
    run_name,
    shift_plane,
    worst_by_radius,
)
from aliasfree_jax.evaluation.report.pictures import (
    LAST_FRAME_MS,
    feature_figure,
    frames,
    gif,
    map_figure,
    png,
    radius_figure,
    slide,
)
from aliasfree_jax.ops.shift import fractional_shift
from aliasfree_jax.validation import validate


def known(name="known", *, scale=1.0, pixel=200):
    """Results on a plane of radius 1. The accuracy is (10 down + right) / 100 + 0.5; its centre is 0.5."""
    shifts = [[down, right] for right in (1, 0, -1) for down in (-1, 0, 1) if (down, right) != (0, 0)]
    accuracy = [scale * (0.5 + (10 * down + right) / 100) for down, right in shifts]
    file = io.BytesIO()
    image = np.zeros((8, 8), np.uint8)
    image[2, 3] = pixel
    Image.fromarray(image).save(file, "PNG")
    return Evaluated(
        name,
        {
            "images": 10,
            "accuracy": 0.5 * scale,
            "shift_plane": {
                "about": "all 8 shifts",
                "pairs": 80,
                "accuracy": float(np.mean(accuracy)),
                "consistency": 1.0,
                "worst_case_by_radius": [0.5 * scale, 0.25 * scale],
                "per_shift": {"shifts": shifts, "accuracy": accuracy, "consistency": [1.0] * 8},
            },
            IMAGE: {
                "label": "six & seven",
                "png": base64.b64encode(file.getvalue()).decode(),
                "slide": {"shifts": [[0, 0], [1, 1], [2, 2]], "true_probability": [0.9, 0.2, 0.6 * scale]},
                "features": {
                    "layer": "stage/block",
                    "channel": 5,
                    "shift": [1, 1],
                    "error": 0.125,
                    "still": [[1.0, -4.0], [2.0, 3.0]],
                    "difference": [[0.5, 0.0], [0.0, -0.25]],
                },
            },
        },
    )


def test_the_plane_is_put_together_from_shifts_in_any_order():
    plane = shift_plane(known(), "accuracy")
    assert plane.down.tolist() == plane.right.tolist() == [-1, 0, 1]
    expected = 0.5 + (10 * np.array([-1, 0, 1])[:, None] + np.array([-1, 0, 1])) / 100
    np.testing.assert_allclose(plane.values, expected, rtol=1e-15)
    assert shift_plane(known(), "consistency").values.tolist() == [[1.0] * 3] * 3


def test_shifts_that_are_no_grid_are_refused():
    network = known()
    for values in network.results["shift_plane"]["per_shift"].values():
        values.pop()
    with pytest.raises(DataError, match="the shifts of known are not a full grid"):
        shift_plane(network, "accuracy")


def test_maps_share_one_scale_and_lie_the_right_way():
    figure = map_figure([known("a"), known("b", scale=0.5)], "accuracy")
    first, second = (axes.images[0] for axes in figure.axes[:2])
    np.testing.assert_allclose(np.asarray(first.get_array())[0], [39, 40, 41])  # shifted up by one pixel
    np.testing.assert_allclose(np.asarray(second.get_array()), np.asarray(first.get_array()) / 2)
    assert first.get_clim() == second.get_clim() == pytest.approx((19.5, 61))
    # Rows go down like those of an image, and pixels are centred on their shifts.
    assert first.get_extent() == [-1.5, 1.5, 1.5, -1.5] and first.origin == "upper"
    assert figure.axes[0].get_title() == "a\nmin 39.00%, mean 50.00%"
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("right, pixels", "down, pixels")
    # The scale spans at least one percent, so that tiny differences do not look like noise.
    assert map_figure([known()], "consistency").axes[0].images[0].get_clim() == (99, 100)


def test_five_maps_take_two_rows():
    figure = map_figure([known(str(i)) for i in range(5)], "accuracy")
    assert [axes.get_title()[:1] for axes in figure.axes if axes.images and axes.get_visible()] == [*"01234"]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_no_label_of_the_maps_is_cut(count):
    """There is white space next to the last label. With the layout alone, labels touch the border."""
    with Image.open(io.BytesIO(png(map_figure([known(f"g{i}") for i in range(count)], "accuracy")))) as drawn:
        pixels = np.asarray(drawn.convert("L"))
    assert all((edge == 255).all() for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]))


def test_curves_by_radius():
    axes = radius_figure([known("a"), known("b", scale=0.5)]).axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[50, 25], [25, 12.5]]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[0, 1]] * 2
    assert [line.get_label() for line in axes.lines] == ["a: 25.0 %", "b: 12.5 %"]
    assert axes.lines[0].get_color() != axes.lines[1].get_color()
    # eval.py --adversarial=integer measures the same values.
    asked = Evaluated("c", {"adversarial_integer": {"worst_case_by_radius": [1.0, 0.5]}})
    assert worst_by_radius(asked).tolist() == [1, 0.5]


def test_feature_maps_beside_each_other():
    figure = feature_figure([known()])
    still, back, difference = (np.asarray(axes.images[0].get_array()) for axes in figure.axes[:3])
    assert still.tolist() == [[1, -4], [2, 3]] and difference.tolist() == [[0.5, 0], [0, -0.25]]
    np.testing.assert_array_equal(back, still + difference)
    assert {axes.images[0].get_clim() for axes in figure.axes[:3]} == {(-4, 4)}
    assert figure.axes[0].get_ylabel() == "known\nstage/block, channel 5\nerror 1.2e-01"


def test_the_animation_has_a_frame_a_shift():
    content = gif(frames([known("a"), known("b", scale=0.5)]))
    with Image.open(io.BytesIO(content)) as animation:
        assert (animation.n_frames, animation.size, animation.info["loop"]) == (3, (760, 320), 0)
        animation.seek(2)
        assert animation.info["duration"] == LAST_FRAME_MS
    shown = list(frames([known()]))
    orange = [(np.abs(frame.astype(int) - (0xD5, 0x5E, 0)).sum(-1) < 30).sum() for frame in shown]
    assert orange[0] < orange[1] < orange[2]  # the curve grows
    bright = [
        np.argwhere(frame[:, :300].min(-1) == 200).mean(0) for frame in shown
    ]  # the bright pixel of the image
    steps = np.diff(bright, axis=0)
    assert (steps > 10).all() and np.ptp(steps) < 2  # it moves down and right by whole pixels


def test_an_animation_shows_one_image_only():
    with pytest.raises(DataError, match="a and b were evaluated with different images or shifts"):
        gif(frames([known("a"), known("b", pixel=100)]))


class Reader(HTMLParser):
    """Checks that elements are closed in order; collects addresses and text."""

    VOID = ("meta", "img", "wbr")

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def read_page(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_is_whole_in_itself_and_escapes_names(tmp_path):
    hostile = known("<script>alert('x')</script> & \"co\"")
    out = tmp_path / "page.html"
    write_report([hostile, known("other")], out)
    text = out.read_text()
    reader = read_page(text)
    assert len(reader.addresses) == len(pictures_of([hostile]))
    assert all(
        address.startswith(("data:image/png;base64,", "data:image/gif;base64,"))
        for address in reader.addresses
    )
    assert "<script" not in text and "url(" not in text and "@import" not in text
    assert hostile.name in reader.words  # the name is shown unchanged
    assert "prefers-color-scheme: dark" in text
    assert (
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in text
    )  # browsers enforce it
    for picture, address in zip(pictures_of([hostile]), reader.addresses, strict=True):
        inside = base64.b64decode(address.partition(",")[2])
        assert (tmp_path / f"page_{picture.file}").read_bytes() == inside
        Image.open(io.BytesIO(inside)).verify()


def test_the_page_compares_in_one_table_and_tells_what_is_not_alike():
    first, second = known("first"), known("second", scale=0.5)
    drawn = dict.fromkeys((picture.file for picture in PICTURES), b"")
    words = read_page(page([first, second], drawn)).words
    at = words.index("accuracy, no shift")
    assert words[at : at + 3] == ["accuracy, no shift", "50.00%", "25.00%"]
    assert not any("Do not compare" in word for word in words)
    # Parts are listed with their measurement, because several may have parts with equal names.
    part = {"pairs": 8, "worst_case_accuracy": 0.125}
    for name in ("fractional", "adversarial_fraction"):
        first.results[name] = part | {"parts": {"1/3": part | {"worst_case_accuracy": len(name) / 100}}}
    words = read_page(page([first, second], drawn)).words
    at = words.index("fractional 1/3: worst case")
    assert words[at + 1] == "10.00%"
    assert words[words.index("adversarial_fraction 1/3: worst case") + 1] == "20.00%"
    second.results["images"] = 9
    second.results["shift_plane"]["about"] = "all 24 shifts"
    words = read_page(page([first, second], drawn)).words
    assert "Do not compare first with second: these settings differ: images, shift_plane." in words


def test_what_was_not_measured_is_told_where_its_picture_would_be():
    bare = Evaluated("bare", {"images": 4, "accuracy": 0.5})
    drawn = draw_pictures([known(), bare])
    assert all(isinstance(content, DataError) for content in drawn.values())
    text = " ".join(read_page(page([known(), bare], drawn)).words)
    assert "No picture: the results of bare have no shift_plane: evaluate it with eval.py --pictures." in text
    assert "No picture: the results of bare have no pictured_image: evaluate it" in text


def test_the_command_compares_files(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "draw_pictures", lambda networks: {each.file: b"" for each in PICTURES})
    files = []
    for name in ("plain", "free"):
        (tmp_path / name).mkdir()
        files.append(tmp_path / name / "eval.json")
        files[-1].write_text(json.dumps(known().results))
    out = tmp_path / "both.html"
    run(command, *map(str, files), f"--output={out}")
    assert f"wrote {out}" in capsys.readouterr().out
    assert "Evaluation under shifts: plain, free" in read_page(out.read_text()).words
    run(command, *map(str, files), f"--output={out}", "--names=A,B")
    assert "Evaluation under shifts: A, B" in read_page(out.read_text()).words


def test_what_the_command_refuses(tmp_path, monkeypatch):
    file = tmp_path / "a.eval.json"
    assert run_name(file) == "a"
    with pytest.raises(ConfigError, match="nothing to report: pass the JSON files of eval.py"):
        run(command)
    with pytest.raises(DataError, match=f"cannot read results from {file}"):
        run(command, str(file))
    for arguments in (["gs://bucket/x"], [str(file), "--output=gs://bucket/x"]):
        with pytest.raises(ConfigError, match="is 'gs://bucket/x', an address: gs:// is not supported"):
            run(command, *arguments)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=f"cannot read results from {tmp_path}/nothing.json"):
        run(command, "~/nothing.json")
    file.write_text("[1]")
    with pytest.raises(DataError, match="no results of eval.py: expected at least images and accuracy"):
        read_results(file)
    file.write_text(json.dumps(known().results))
    with pytest.raises(ConfigError, match="--names has 2 names for 1 files"):
        run(command, str(file), "--names=x,y")
    with pytest.raises(
        ConfigError, match="two networks have the same name: a, a. Pass different names with --names."
    ):
        run(command, str(file), str(file))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackageError, match="a picture needs matplotlib.*'aliasfree_jax.figures.'"):
        run(command, str(file))


def test_what_is_measured_is_what_is_drawn():
    """A network that aliases fails for some shifts of the plane; an alias-free network never fails."""
    for predict, worst in ((strided, 0.9), (alias_free, 1.0)):
        batch = labelled(predict, smooth_noise(4, 16))
        results = evaluate(predict, [batch], [plane_measurement(16, 2), slide_measurement(2)])
        network = Evaluated("n", json.loads(json.dumps(results)))
        plane = shift_plane(network, "consistency")
        assert plane.values.shape == (5, 5) and plane.values[2, 2] == 1
        # The worst case is at most the accuracy of any shift. The mean of the map equals that of the table.
        assert worst_by_radius(network)[-1] <= plane.values.min() <= 1
        pairs = plane.values.size - 1
        assert (plane.values.sum() - 1) / pairs == pytest.approx(results["shift_plane"]["consistency"])
        assert plane.values.min() == 1 if worst == 1 else plane.values.min() < worst
        way = results["slide"]["per_shift"]
        assert way["shifts"] == [[step / 4] * 2 for step in range(9)]


class Striding(nn.Module):
    """A layer that keeps every second pixel, then a mean."""

    @nn.compact
    def __call__(self, images):
        kept = nn.Conv(3, (1, 1), strides=2, name="striding")(images)
        return nn.Dense(2, name="head")(kept.mean((1, 2)))


class Sequence(nn.Module):
    """Two layers whose names are not in the order of their calls. Their maps have 8 x 8 and 4 x 4 pixels."""

    @nn.compact
    def __call__(self, images):
        y = Striding(name="second")(images)
        z = Striding(name="first")(images[:, ::2, ::2])
        return y + z


def test_the_feature_map_of_a_layer():
    image = smooth_noise(1, 32)[0]
    module = Striding()
    variables = module.init(jax.random.key(0), image[None])
    found = feature_results(module, variables, image)
    assert found["layer"] == "striding" and np.shape(found["still"]) == (16, 16)
    kernel = np.asarray(variables["params"]["striding"]["kernel"])[0, 0]
    expected = (image[::2, ::2] @ kernel)[..., found["channel"]]
    np.testing.assert_allclose(found["still"], expected, rtol=1e-4, atol=1e-5)  # 5 digits are stored
    assert found["error"] > 1e-2  # caused by aliasing
    with pytest.raises(ConfigError, match="unknown layer with a feature map .eval.pictured_layer. 'stride'"):
        feature_results(module, variables, image, "stride")
    with pytest.raises(ConfigError, match="no layer of the network has a map of 8 x 8"):
        feature_results(module, variables, image[:8, :8])


def test_maps_of_adaptive_samplers_move_by_whole_pixels():
    still = smooth_noise(1, 16)
    moved = np.roll(
        still, (1, 0), axis=(1, 2)
    )  # the image is shifted by (1, 1), which is half a pixel of the map
    np.testing.assert_allclose(moved_back(still, moved, (1, 32, 32, 3)), still, atol=1e-4)
    assert np.abs(moved - still).max() > 0.1


def test_other_maps_move_back_in_proportion():
    still = np.asarray(
        fractional_shift(jnp.asarray(smooth_noise(1, 15)), (0.25, 0.25))
    )  # odd side: no Nyquist frequency
    moved = np.asarray(fractional_shift(jnp.asarray(still), (0.5, 0.5)))
    np.testing.assert_allclose(moved_back(still, moved, (1, 30, 30, 3)), still, atol=1e-4)


def test_layers_come_in_the_order_of_their_calls():
    image = smooth_noise(1, 16)
    module = Sequence()
    variables = module.init(jax.random.key(0), image)
    maps = feature_maps(module, variables, jnp.asarray(image))
    assert [*maps] == ["second/striding", "first/striding"]  # vectors are not maps
    assert feature_results(module, variables, image[0])["layer"] == "second/striding"


def test_an_image_that_is_not_there():
    config = base_config()
    config.eval.pictured_image = 2
    source = ArraySource(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2, int), ("a",))
    with pytest.raises(
        ConfigError, match="pictured_image = 2, but there are 2 images: choose one from 0 to 1"
    ):
        image_results(Striding(), {}, strided, source, config)
    config.eval.pictured_image = -1
    with pytest.raises(ConfigError, match="eval.pictured_image must not be negative, got -1"):
        validate(config)


def test_the_slide_is_read_as_it_was_kept():
    found = slide(known())
    assert found.image.shape == (8, 8, 3) and found.image[2, 3].tolist() == [200] * 3
    assert found.shifts.tolist() == [[0, 0], [1, 1], [2, 2]] and found.label == "six & seven"
    assert found.probability.tolist() == [0.9, 0.2, 0.6]
