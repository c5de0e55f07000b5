"""Files of real PyTorch with known values, damaged files, and files of other formats."""

import io
import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from aliasfree_jax.conversion.weight_files import read_state_dict, read_torch_file
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.pickles.inert import Record

DATA = Path(__file__).parent / "data"
FORMATS = ("zip", "legacy")
DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
FILES = sorted(DATA.glob("*.pth"))


def filled(*shape, start=0.0):
    """The values of make_torch_fixtures.py: quarters, exact in every float dtype of the files."""
    return (np.arange(np.prod(shape)) / 4 + start).astype(np.float32).reshape(shape)


def rezipped(source, target, change):
    """Copies a zip checkpoint. `change(name, data)` returns each entry's new bytes. None drops it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if (data := change(name, old.read(name))) is not None:
                new.writestr(name, data)
    return target


def test_all_fixtures_are_there():
    assert len(FILES) == 9
    assert {path.name.split("_")[0] for path in FILES} == {
        "tensors",
        "training",
        "parallel",
        "weights",
        "convnext",
    }


@pytest.mark.parametrize("container", FORMATS)
@pytest.mark.parametrize("name", DTYPES)
def test_dtypes(container, name):
    array = read_torch_file(DATA / f"tensors_{container}.pth")[f"dtype.{name}"]
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    assert type(array) is np.ndarray and array.dtype == dtype and array.dtype.isnative
    np.testing.assert_array_equal(array, filled(3, 4).astype(dtype))


@pytest.mark.parametrize("container", FORMATS)
def test_strides_views_and_parameters(container):
    content = read_torch_file(DATA / f"tensors_{container}.pth")
    expected = {
        "scalar": np.array(7, np.int64),
        "empty": np.empty((0, 3), np.float32),
        "transposed": filled(3, 4).T,
        "channels_last": filled(2, 3, 4, 5),
        "sliced": filled(4, 6)[1:, ::2],
        "expanded": np.repeat(filled(3, 1), 4, axis=1),
        "shared.all": filled(12),
        "shared.part": filled(12)[4:10],
        "parameter": filled(2, 2),
    }
    assert set(content) == set(expected) | {f"dtype.{name}" for name in DTYPES}
    for name, array in expected.items():
        assert content[name].dtype == array.dtype, name
        np.testing.assert_array_equal(content[name], array, err_msg=name, strict=True)


@pytest.mark.parametrize("container", FORMATS)
def test_arrays_share_no_memory_and_can_be_written(container):
    content = read_torch_file(DATA / f"tensors_{container}.pth")
    arrays = list(content.values())
    for array in arrays:
        assert array.flags.writeable and array.flags.c_contiguous
    for index, array in enumerate(arrays):
        assert not any(np.shares_memory(array, other) for other in arrays[:index])
    content["shared.all"][:] = -1
    np.testing.assert_array_equal(content["shared.part"], filled(12)[4:10])


@pytest.mark.parametrize("container", FORMATS)
def test_training_checkpoint(container):
    content = read_torch_file(DATA / f"training_{container}.pth")
    assert list(content) == ["model", "model_ema", "optimizer", "epoch", "scaler", "args"]
    assert type(content["model"]) is OrderedDict and content["epoch"] == "best-ema"
    names = ["gamma", "act.coef", "act.rect", "head.weight", "head.bias"]
    assert list(content["model"]) == list(content["model_ema"]) == names
    np.testing.assert_array_equal(content["model"]["act.coef"], filled(4, 3, 1, 1))
    np.testing.assert_array_equal(content["model_ema"]["act.coef"], filled(4, 3, 1, 1, start=100))
    decay, no_decay = content["optimizer"]["param_groups"]
    assert decay["lr_scale"] == 1.0 and no_decay["weight_decay"] == 0.0 and no_decay["params"] == [1]
    assert decay["betas"] == (0.9, 0.999)
    first = content["optimizer"]["state"][0]
    assert first["step"] == 1
    # All gradients are 1, so the first moment is 1 - 0.9, rounded to float32.
    np.testing.assert_allclose(first["exp_avg"], np.full((2, 4), 0.1), rtol=1e-6)
    assert content["scaler"]["scale"] == 65536.0


@pytest.mark.parametrize("container", FORMATS)
def test_namespace_is_an_inert_record(container):
    args = read_torch_file(DATA / f"training_{container}.pth")["args"]
    assert type(args) is Record and args.model == "convnext_afc" and args.resume is None
    assert vars(args) == {
        "model": "convnext_afc",
        "lr": 0.004,
        "resume": None,
        "betas": [0.9, 0.999],
        "device": "cuda:0",
        "dtype": "torch.float32",
        "size": (3, 32, 32),
    }
    assert repr(args).startswith("Record(model='convnext_afc', lr=0.004")


@pytest.mark.parametrize("container", FORMATS)
def test_numpy_values_beside_the_weights(container):
    content = read_torch_file(DATA / f"parallel_{container}.pth")
    assert content["epoch"] == 90 and content["arch"] == "resnet50"
    assert type(content["best_acc1"]) is np.float64 and content["best_acc1"] == 76.25
    np.testing.assert_array_equal(content["history"], np.arange(6, dtype=np.float32).reshape(2, 3))
    assert content["none"].shape == (0,) and content["none"].dtype == np.int64
    assert content["dtype"] == np.int16


def test_numpy_values_written_by_numpy_1(tmp_path):
    path = rezipped(
        DATA / "parallel_zip.pth",
        tmp_path / "old.pth",
        lambda name, data: data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"),
    )
    assert read_torch_file(path)["best_acc1"] == 76.25


def test_big_endian_file(tmp_path):
    sizes = {"float64": 8, "float32": 4, "bfloat16": 2, "int16": 2, "uint8": 1}
    words = {f"tensors_zip/data/{number}": sizes.get(name) for number, name in enumerate(DTYPES)}

    def swapped(name, data):
        if name.endswith("/byteorder"):
            return b"big"
        size = words.get(name)
        return np.frombuffer(data, f"u{size}").byteswap().tobytes() if size else data

    content = read_torch_file(rezipped(DATA / "tensors_zip.pth", tmp_path / "big.pth", swapped))
    for name in sizes:
        array = content[f"dtype.{name}"]
        assert array.dtype.isnative
        np.testing.assert_array_equal(array, filled(3, 4).astype(array.dtype))


def test_file_without_byteorder_is_little_endian(tmp_path):
    path = rezipped(
        DATA / "weights_zip.pth",
        tmp_path / "old.pth",
        lambda name, data: None if name.endswith("byteorder") else data,
    )
    np.testing.assert_array_equal(read_state_dict(path)["gamma"], filled(4))


@pytest.mark.parametrize("container", FORMATS)
@pytest.mark.parametrize(
    ("name", "key", "start"),
    [
        ("weights", None, 0.0),
        ("training", None, 100.0),  # the averaged weights
        ("training", "model_ema", 100.0),
        ("training", "model", 0.0),
        ("parallel", None, 0.0),  # under state_dict, with a prefix
        ("parallel", "state_dict", 0.0),
    ],
)
def test_state_dict(container, name, key, start):
    weights = read_state_dict(DATA / f"{name}_{container}.pth", key=key)
    expected = {
        "gamma": filled(4, start=start),
        "act.coef": filled(4, 3, 1, 1, start=start),
        "act.rect": filled(4, 3, start=start),
        "head.weight": filled(2, 4, start=start),
        "head.bias": filled(2, start=start),
    }
    assert type(weights) is dict and list(weights) == list(expected)
    for entry, array in expected.items():
        np.testing.assert_array_equal(weights[entry], array, strict=True)


def test_state_dict_keeps_half_precision():
    weights = read_state_dict(DATA / "tensors_zip.pth")
    assert weights["dtype.float16"].dtype == np.float16
    assert weights["dtype.bfloat16"].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("name", "key", "message"),
    [
        ("training", "ema", r"no entry 'ema'; the entries are 'model', 'model_ema', 'optimizer', "),
        ("training", "epoch", r"entry 'epoch' is a str, not a dictionary of weights"),
        ("training", "args", r"entry 'args' is a Record, not a dictionary"),
        (
            "training",
            "optimizer",
            r"entry 'optimizer' is not a state dict of named .* 2 entries are 'state', 'param_groups'",
        ),
        (
            "training",
            "scaler",
            r"entry 'scaler' is not a state dict of named tensors. Its .* entries are 'scale', ",
        ),
        (
            "tensors",
            "model",
            r"no entry 'model'; .*'dtype.float64'.* \(19 in all\).* averaged weights are loaded",
        ),
    ],
)
def test_wrong_key(name, key, message):
    with pytest.raises(ConversionError, match=message):
        read_state_dict(DATA / f"{name}_zip.pth", key=key)


def test_unread_storages_are_not_needed(tmp_path):
    """Only the chosen weights are read, so damage in the optimizer's numbers does no harm."""
    with zipfile.ZipFile(DATA / "training_zip.pth") as archive:
        last = max((n for n in archive.namelist() if "/data/" in n), key=lambda n: int(n.split("/")[-1]))
        offset = archive.getinfo(last).header_offset
    data = bytearray((DATA / "training_zip.pth").read_bytes())
    payload = data.index(np.float32(0.1).tobytes()[1:], offset - 200)  # a first moment
    data[payload] ^= 255
    path = tmp_path / "damaged.pth"
    path.write_bytes(data)
    assert len(read_state_dict(path, key="model")) == 5
    with pytest.raises(ConversionError, match="cut short or damaged .*CRC.* Download it again"):
        read_torch_file(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_cut_files_are_refused(path, tmp_path):
    data = path.read_bytes()
    cut = tmp_path / "cut.pth"
    for size in [*range(1, len(data), max(61, len(data) // 200)), len(data) - 1]:
        cut.write_bytes(data[:size])
        with pytest.raises(ConversionError, match=r"cut\.pth: .*([Dd]ownload|cut short)"):
            read_torch_file(cut)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_flipped_bytes_give_an_answer_or_a_conversion_error(path, tmp_path):
    data = path.read_bytes()
    random = np.random.default_rng(0)
    flipped = tmp_path / "flipped.pth"
    failures = 0
    for position in random.integers(0, len(data), 150):
        copy = bytearray(data)
        copy[position] ^= int(random.integers(1, 256))
        flipped.write_bytes(copy)
        try:
            read_torch_file(flipped)
        except ConversionError:
            failures += 1
    assert failures > 20  # some flips caused errors


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty. Download it again"),
        (b"<!DOCTYPE html><html>", "a web page, not weights"),
        (b"\n  <html>", "a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\0" * 257 + b"ustar\0", "a tar archive"),
        (b"\x10\0\0\0\0\0\0\0{}", "a safetensors file"),
        (b"garbage", r"torch.save did not write it \(7 bytes that begin with b'garbage'\)"),
        (b"PK\x03\x04garbage", "the zip archive is cut short or damaged"),
        (b"\x80\x02K\x01.", "torch.save did not write it: the magic number is missing"),
    ],
)
def test_foreign_files(data, message, tmp_path):
    path = tmp_path / "foreign.pth"
    path.write_bytes(data)
    with pytest.raises(ConversionError, match=message) as error:
        read_torch_file(path)
    assert str(path) in str(error.value)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(ConversionError, match="no.pth: the file does not exist"):
        read_torch_file(tmp_path / "no.pth")
    with pytest.raises(ConversionError, match="cannot be read: Is a directory"):
        read_torch_file(tmp_path)


def test_other_zip_files(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.ones(2))
    with pytest.raises(ConversionError, match=r"torch.save did not write it.* Its entries: 'a.npy'"):
        read_torch_file(tmp_path / "arrays.npz")
    script = rezipped(DATA / "weights_zip.pth", tmp_path / "script.pt", lambda name, data: data)
    with zipfile.ZipFile(script, "a") as archive:
        archive.writestr("weights_zip/constants.pkl", b"")
    with pytest.raises(ConversionError, match="a TorchScript program"):
        read_torch_file(script)


def test_compressed_and_missing_entries(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
    path = tmp_path / "packed.pth"
    path.write_bytes(packed.getvalue())
    with pytest.raises(ConversionError, match="compressed or encrypted"):
        read_torch_file(path)
    lacking = rezipped(
        DATA / "weights_zip.pth", tmp_path / "a.pth", lambda name, data: None if name[-2:] == "/1" else data
    )
    with pytest.raises(ConversionError, match="no entry 'weights_zip/data/1'. Download it again"):
        read_torch_file(lacking)
