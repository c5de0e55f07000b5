"""The tars of ILSVRC2012: what is read, and what is ignored."""

import io
import tarfile

import numpy as np
import pytest
from packing import SIZES, in_process, jpeg
from scipy.io import savemat

from aliasfree_jax.data import prepare as module
from aliasfree_jax.data.ilsvrc import DEVKIT, TRAIN, VAL, IlsvrcTrain, IlsvrcVal
from aliasfree_jax.data.prepare import prepare
from aliasfree_jax.data.records import RecordSource
from aliasfree_jax.errors import DataError


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


@pytest.fixture
def ilsvrc(tmp_path):
    """Three classes whose numbers in the kit differ from the order of their names."""
    root = tmp_path / "ILSVRC2012"
    root.mkdir()
    with tarfile.open(root / TRAIN, "w") as outer:
        for number, name in enumerate(("n02", "n01", "n03")):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for index in range(2):
                    add(archive, f"{name}_{index}.JPEG", jpeg(seed=10 * number + index))
            add(outer, f"{name}.tar", inner.getvalue())
    with tarfile.open(root / VAL, "w") as archive:
        for index in (2, 1, 3):
            add(archive, f"ILSVRC2012_val_{index:08d}.JPEG", jpeg(seed=100 + index))
    ids = np.array([(1, "n03"), (2, "n01"), (3, "n02")], [("ILSVRC2012_ID", "O"), ("WNID", "O")])
    kit = io.BytesIO()
    savemat(kit, {"synsets": ids})
    with tarfile.open(root / DEVKIT, "w:gz") as archive:
        add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", kit.getvalue())
        add(archive, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", b"3\n1\n2\n")
    return root


def test_the_tars_of_imagenet(ilsvrc, tmp_path, monkeypatch):
    in_process(monkeypatch)
    prepare(ilsvrc, tmp_path / "out", **SIZES)
    train, val = (RecordSource(tmp_path / "out", split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("n01", "n02", "n03")
    seen = {train[i].name: (train[i].label, train[i].image) for i in range(6)}
    assert seen["n02/n02_1.JPEG"] == (1, jpeg(seed=1)) and seen["n01/n01_0.JPEG"] == (0, jpeg(seed=10))
    # Images 1, 2, 3 have the kit's classes 3, 1, 2: n02, n03, n01.
    assert [(val[i].name[-6], val[i].label) for i in range(3)] == [("1", 1), ("2", 2), ("3", 0)]
    assert val[0].image == jpeg(seed=101)


def test_faults_of_the_tars_are_named(ilsvrc, tmp_path):
    (ilsvrc / DEVKIT).rename(ilsvrc / "kit.tar.gz")
    with pytest.raises(DataError, match="labels of the validation images from ILSVRC2012_devkit"):
        prepare(ilsvrc, tmp_path / "out", **SIZES)
    (ilsvrc / "kit.tar.gz").rename(ilsvrc / DEVKIT)
    (ilsvrc / VAL).rename(ilsvrc / "val.tar")
    with pytest.raises(DataError, match="ILSVRC2012_img_val.tar is missing, damaged"):
        prepare(ilsvrc, tmp_path / "out", **SIZES)
    (ilsvrc / "val.tar").rename(ilsvrc / VAL)
    with tarfile.open(ilsvrc / VAL, "a") as archive:
        add(archive, "ILSVRC2012_val_00000004.JPEG", jpeg())
    with pytest.raises(DataError, match="has 4 images, .* has 3 labels"):
        prepare(ilsvrc, tmp_path / "out", **SIZES)
    (ilsvrc / TRAIN).write_bytes(jpeg())
    with pytest.raises(DataError, match=f"{TRAIN} is missing, damaged, or not {TRAIN}"):
        prepare(ilsvrc, tmp_path / "out", **SIZES)


def rewrite(path, members) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            add(archive, name, data)


def test_other_files_in_the_tars_are_named(ilsvrc):
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        add(archive, "n01_0.JPEG", jpeg())
        add(archive, "._n01_0.JPEG", b"left by an archiver")
        add(archive, "Thumbs.db", b"left by a file manager")
    empty = io.BytesIO()
    with tarfile.open(fileobj=empty, mode="w") as archive:
        add(archive, "notes.txt", b"")
    members = [("n01.tar", inner.getvalue()), ("n02.tar", empty.getvalue()), ("n03.zip", b"")]
    rewrite(ilsvrc / TRAIN, members)
    with pytest.warns(UserWarning) as caught:
        train = IlsvrcTrain(ilsvrc / TRAIN)
    assert train.class_names == ("n01",) and train.names == ["n01/n01_0.JPEG"]
    assert [str(warning.message) for warning in caught] == [
        f"{ilsvrc / TRAIN}: ignored 5 files or folders: .db (1, first Thumbs.db), .txt (1, first notes.txt), "
        ".zip (1, first n03.zip), class folders without images, which are not classes (1, first n02.tar), "
        "hidden (1, first ._n01_0.JPEG)."
    ]
    names = [f"ILSVRC2012_val_{index:08d}.JPEG" for index in (1, 2, 3)]
    rewrite(ilsvrc / VAL, [(name, jpeg()) for name in ["readme.txt", *names]])
    with pytest.warns(UserWarning, match="ignored 1 files or folders: .txt"):
        assert IlsvrcVal(ilsvrc / VAL, ("n01", "n02", "n03")).names == names


@pytest.mark.parametrize("name", [TRAIN, VAL])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_half_a_tar_of_imagenet(ilsvrc, name, share):
    whole = (ilsvrc / name).read_bytes().rstrip(b"\0")
    (ilsvrc / name).write_bytes(whole[: int(len(whole) * share) // 512 * 512])
    with pytest.raises(DataError, match=f"{name} is missing, damaged, or not"):
        module.open_sources(ilsvrc)


@pytest.mark.parametrize("kit", ["cut", "other labels", "no synsets", "text"])
def test_a_damaged_kit_is_one_sentence(ilsvrc, kit):
    path = ilsvrc / DEVKIT
    with tarfile.open(path) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}
    mat, truth = members
    match kit:
        case "other labels":
            members[truth] = b"3\n1\n9\n"
        case "no synsets":
            members[mat] = members[mat][:100]
        case "text":
            members[truth] = b"\xff"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            add(archive, name, data)
    if kit == "cut":
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=f"labels of the validation images from {DEVKIT}"):
        module.open_sources(ilsvrc)
