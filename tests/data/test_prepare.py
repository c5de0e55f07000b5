"""Packing images into shards: what is kept, resuming, checksums, and the tars of ILSVRC2012."""

import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from aliasfree_jax.config import base_config
from aliasfree_jax.data import open_source, shards, train_batches
from aliasfree_jax.data import prepare as module
from aliasfree_jax.data.decode import decode
from aliasfree_jax.data.folder import FolderSource
from aliasfree_jax.data.ilsvrc import DEVKIT, TRAIN, VAL, IlsvrcTrain, IlsvrcVal
from aliasfree_jax.data.prepare import main, prepare
from aliasfree_jax.data.records import RecordSource, read_info, unpack
from aliasfree_jax.errors import ConfigError, DataError
from aliasfree_jax.files import LOCK, OccupiedError, sole_writer

SIZES = {"per_shard": 4, "side": 0, "workers": 2}


def jpeg(height=20, width=30, seed=0) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two classes; 9 training images, 3 validation images."""
    root = tmp_path_factory.mktemp("folders")
    for split, count in (("train", 9), ("val", 3)):
        for index in range(count):
            path = root / split / ("cat", "dog")[index % 2] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(seed=index))
    return root


@pytest.fixture(scope="module")
def packed(folders, tmp_path_factory):
    directory = tmp_path_factory.mktemp("packed") / "deep"
    prepare(folders, directory, **SIZES)
    return directory


def in_process(monkeypatch):
    """Shards are written by this process, which is faster to start."""

    class Pool:
        def __init__(self, workers, context, begin, arguments):
            monkeypatch.setattr(shards, "_sources", *arguments)

        def shutdown(self, cancel_futures):
            pass

        map = staticmethod(map)

    monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_same_images_byte_by_byte(folders, packed, split):
    there, here = FolderSource(folders, split), RecordSource(packed, split)
    assert (len(here), here.class_names) == (len(there), ("cat", "dog"))
    np.testing.assert_array_equal(here.labels, there.labels)
    for index in range(len(there)):
        assert here[index] == there[index]
    assert pickle.loads(pickle.dumps(here))[1] == there[1]


def test_only_shards_labels_and_info_are_left(packed):
    names = {path.name for path in packed.iterdir()} - {LOCK}
    shards = {f"train-0000{i}-of-00003.array_record" for i in range(3)} | {"val-00000-of-00001.array_record"}
    assert names == shards | {"info.json", "train-labels.npy", "val-labels.npy"}
    train = read_info(packed)["splits"]["train"]
    assert train["images"] == 9 and [shard["images"] for shard in train["shards"]] == [3, 3, 3]


def test_training_reads_them(packed):
    config = base_config()
    config.data.update({"source": "records", "path": str(packed), "image_size": 16, "eval_crop_ratio": 1.0})
    batches = train_batches(open_source(config.data, train=True), config.data, batch_size=4, seed=0)
    batch = next(batches)
    batches.close()
    assert batch["image"].shape == (4, 16, 16, 3) and set(batch["label"]) <= {0, 1}
    config.data.path = ""
    with pytest.raises(ConfigError, match="'records' needs data.path"):
        open_source(config.data, train=True)


def test_larger_images_are_resized_and_others_kept(tmp_path, monkeypatch):
    in_process(monkeypatch)
    sizes = {"wide": (30, 60), "high": (80, 40), "small": (10, 50)}
    for name, (height, width) in sizes.items():
        path = tmp_path / f"in/train/a/{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(height, width))
    prepare(tmp_path / "in", tmp_path / "out", **SIZES | {"side": 20})
    source = RecordSource(tmp_path / "out", "train")
    shapes = {
        e.name.split("/")[-1][:-4]: decode(e.image, "").shape[:2] for e in map(source.__getitem__, range(3))
    }
    assert shapes == {"wide": (20, 40), "high": (40, 20), "small": (10, 50)}
    small = next(e for e in map(source.__getitem__, range(3)) if "small" in e.name)
    assert small.image == jpeg(10, 50)


def test_an_interrupted_run_goes_on(folders, tmp_path, monkeypatch):
    """Died after the first shard and within the second: the first is not written again."""
    directory = tmp_path / "out"
    directory.mkdir()
    monkeypatch.setattr(shards, "_sources", module.open_sources(folders))
    first, second, *_ = module.tasks_of(module.open_sources(folders), directory, 4, 0)
    note = module.write_shard(first)
    second.path.with_suffix(".part").write_bytes(b"half a shard")
    before = first.path.stat().st_mtime_ns
    info = prepare(folders, directory, **SIZES)
    assert first.path.stat().st_mtime_ns == before
    assert info["splits"]["train"]["shards"][0]["sha256"] == note["sha256"]
    assert len(RecordSource(directory, "train")) == 9
    assert not list(directory.glob("*.part"))


@pytest.fixture
def unfinished(folders, tmp_path, monkeypatch):
    """A directory with all shards and notes, but no `info.json`."""
    directory = tmp_path / "unfinished"
    directory.mkdir()
    monkeypatch.setattr(shards, "_sources", module.open_sources(folders))
    for task in module.tasks_of(shards._sources, directory, 4, 0):
        shards.write_shard(task)
    return directory


NOTE = "train-00000-of-00003.json"
SHARD = "train-00000-of-00003.array_record"


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", "{}", '{"start": 0}', "\0" * 50, "cut", "labels"])
def test_a_note_that_cannot_be_used_is_a_shard_to_be_made_again(folders, unfinished, monkeypatch, damage):
    in_process(monkeypatch)
    note = (unfinished / NOTE).read_text()
    whole = (unfinished / SHARD).read_bytes()
    texts = {"cut": note[:-20], "labels": json.dumps(json.loads(note) | {"labels": None})}
    (unfinished / NOTE).write_text(texts.get(damage, damage))
    kept = (unfinished / SHARD.replace("00000", "00001")).stat().st_mtime_ns
    (unfinished / SHARD).write_bytes(b"of an older day")
    prepare(folders, unfinished, **SIZES)
    assert (unfinished / SHARD).read_bytes() == whole
    assert (unfinished / SHARD.replace("00000", "00001")).stat().st_mtime_ns == kept


@pytest.mark.parametrize("length", [0, 100])
def test_a_shard_that_is_cut_is_made_again(folders, unfinished, monkeypatch, length):
    in_process(monkeypatch)
    whole = (unfinished / SHARD).read_bytes()
    (unfinished / SHARD).write_bytes(whole[:length])
    (unfinished / SHARD.replace("array_record", "part")).write_bytes(b"half")
    prepare(folders, unfinished, **SIZES)
    assert (unfinished / SHARD).read_bytes() == whole and not list(unfinished.glob("*.part"))


def test_shards_of_other_images_are_not_continued(folders, unfinished, tmp_path):
    shutil.copytree(folders, tmp_path / "in")
    (tmp_path / "in/train/cat/0.jpg").rename(tmp_path / "in/train/cat/00.jpg")
    with pytest.raises(DataError, match=f"holds shards of other images.*{SHARD}"):
        prepare(tmp_path / "in", unfinished, **SIZES)
    for note in unfinished.glob("*.json"):  # without a note, the name of a shard says as much
        note.unlink()
    with pytest.raises(DataError, match="holds shards of other images or options"):
        prepare(folders, unfinished, **SIZES | {"per_shard": 5})


def test_one_writer_a_directory(folders, unfinished):
    with sole_writer(unfinished), pytest.raises(OccupiedError, match="another process writes to"):
        prepare(folders, unfinished, **SIZES)


def test_home_and_addresses(folders, tmp_path, monkeypatch, capsys):
    in_process(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folders, tmp_path / "data")
    assert main(["~/data", "~/out"]) == 0
    assert main(["--verify", "~/out"]) == 0
    assert len(RecordSource("~/out", "train")) == 9
    capsys.readouterr()
    for arguments in (["gs://b/data", "out2"], ["data", "gs://b/out"], ["--verify", "s3://b/out"]):
        assert main(arguments) == 2
        assert "an address" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out"}


def test_a_directory_that_cannot_be_written(folders, tmp_path, monkeypatch):
    in_process(monkeypatch)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write in .*file"):
        prepare(folders, tmp_path / "file", **SIZES)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "write_json", full)
    with pytest.raises(DataError, match="cannot write .*No space left.*give the same command again"):
        prepare(folders, tmp_path / "out", **SIZES)


def test_ctrl_c_is_one_line(folders, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_write_shards", interrupted)
    with pytest.raises(SystemExit) as end:
        main([str(folders), str(tmp_path / "out")])
    assert end.value.code == 130
    told = capsys.readouterr().err
    assert told == f"interrupted: give the same command again to go on in {tmp_path / 'out'}\n"


@pytest.mark.slow
def test_a_worker_that_is_killed(folders, tmp_path):
    """As the system does when memory runs out: one sentence, and it goes on."""
    command = [sys.executable, "-m", "aliasfree_jax.data.prepare", folders, tmp_path, "--images_per_shard=1"]
    job = subprocess.Popen([*command, "--workers=1"], text=True, stderr=subprocess.PIPE)
    while job.poll() is None and not list(tmp_path.glob("*-of-*.json")):
        time.sleep(0.002)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    for child in children:
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
            os.kill(int(child), signal.SIGKILL)
    told = job.communicate()[1]
    assert job.returncode == 2 and "error: a worker process was ended from outside" in told, told
    assert "Traceback" not in told
    assert subprocess.run(command).returncode == 0


@pytest.mark.slow
def test_ctrl_c_while_the_workers_start_and_work(folders, tmp_path):
    """To the whole group of processes, at several moments: no traceback, status 130, and it goes on."""
    command = [sys.executable, "-m", "aliasfree_jax.data.prepare", folders, tmp_path / "out", "--workers=1"]
    command = [*map(str, command), "--images_per_shard=1"]
    for awaited in (LOCK, "*-of-*.part", "*-of-*.json"):
        job = subprocess.Popen(command, text=True, stderr=subprocess.PIPE, start_new_session=True)
        while job.poll() is None and not list((tmp_path / "out").glob(awaited)):
            time.sleep(0.002)
        os.killpg(job.pid, signal.SIGINT)
        told = job.communicate()[1]
        assert job.returncode == 130, told
        assert "Traceback" not in told and told.splitlines()[-1].startswith("interrupted: give the same")
    assert subprocess.run(command).returncode == 0
    assert len(RecordSource(tmp_path / "out", "train")) == 9


def test_other_options_are_refused_before_anything_is_lost(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_sources", module.open_sources(folders))
    module.write_shard(module.tasks_of(module.open_sources(folders), tmp_path, 4, 0)[0])
    for changed in ({"side": 16}, {"per_shard": 5}):
        with pytest.raises(DataError, match="holds shards of other images or options"):
            prepare(folders, tmp_path, **SIZES | changed)
    assert len(list(tmp_path.glob("*.array_record"))) == 1


def test_images_that_cannot_be_resized_are_left_out_and_named(tmp_path, monkeypatch):
    in_process(monkeypatch)
    for name, data in (("good.jpg", jpeg()), ("bad.jpg", b"no image"), ("cut.jpg", jpeg()[:300])):
        path = tmp_path / "in/train/a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    info = prepare(tmp_path / "in", tmp_path / "out", **SIZES | {"side": 10})
    left_out = info["splits"]["train"]["unreadable"]
    assert len(left_out) == 2 and "bad.jpg" in left_out[0] and "cut.jpg" in left_out[1]
    assert len(RecordSource(tmp_path / "out", "train")) == 1


def test_a_split_that_cannot_be_packed_is_told_of(folders, tmp_path, capsys, monkeypatch):
    in_process(monkeypatch)
    shutil.copytree(folders, tmp_path / "in")
    (tmp_path / "in/val/cow").mkdir()
    (tmp_path / "in/val/cow/0.jpg").write_bytes(jpeg())
    info = prepare(tmp_path / "in", tmp_path / "out", **SIZES)
    assert list(info["splits"]) == ["train"]
    assert "without: " in (told := capsys.readouterr().err) and "train does not have" in told


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


@pytest.fixture
def ilsvrc(tmp_path):
    """Three classes whose numbers in the kit are not in the order of their names."""
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
    # Images 1, 2, 3 are of the kit's classes 3, 1, 2: n02, n03, n01.
    assert [(val[i].name[-6], val[i].label) for i in range(3)] == [("1", 1), ("2", 2), ("3", 0)]
    assert val[0].image == jpeg(seed=101)


def test_faults_of_the_tars_are_named(ilsvrc, tmp_path):
    (ilsvrc / DEVKIT).rename(ilsvrc / "kit.tar.gz")
    with pytest.raises(DataError, match="labels of the validation images are in ILSVRC2012_devkit"):
        prepare(ilsvrc, tmp_path / "out", **SIZES)
    (ilsvrc / "kit.tar.gz").rename(ilsvrc / DEVKIT)
    (ilsvrc / VAL).rename(ilsvrc / "val.tar")
    with pytest.raises(DataError, match="ILSVRC2012_img_val.tar is missing, damaged"):
        prepare(ilsvrc, tmp_path / "out", **SIZES)
    (ilsvrc / "val.tar").rename(ilsvrc / VAL)
    with tarfile.open(ilsvrc / VAL, "a") as archive:
        add(archive, "ILSVRC2012_val_00000004.JPEG", jpeg())
    with pytest.raises(DataError, match="has 4 images, .* has labels of 3"):
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
        ".zip (1, first n03.zip), class folders without images, which are no classes (1, first n02.tar), "
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
    with pytest.raises(DataError, match=f"labels of the validation images are in {DEVKIT}"):
        module.open_sources(ilsvrc)


def test_the_command_packs_and_verifies(folders, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [str(folders), str(out), "--images_per_shard=5", "--workers=1"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "train: 9 images in 2 shards" in told and f"--config.data.path={out}" in told
    assert main(["--verify", str(out)]) == 0
    assert "3 shards are as they were written" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "is prepared already" in capsys.readouterr().err

    shard = out / "train-00001-of-00002.array_record"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    (out / "val-00000-of-00001.array_record").unlink()
    assert main(["--verify", str(out)]) == 2
    told = capsys.readouterr().err
    assert "train-00001-of-00002.array_record is damaged" in told
    assert "val-00000-of-00001.array_record is missing" in told
    with pytest.raises(DataError, match="lacks 1 of 1 shards"):
        RecordSource(out, "val")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one"], "expected IMAGES and DIRECTORY"),
        (["a", "b", "--verify"], "expected IMAGES and DIRECTORY"),
        (["a", "b", "--images_per_shard=0"], "must be positive"),
        (["a", "b", "--resize=-1"], "must not be negative"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_directories_that_hold_no_records(packed, tmp_path):
    with pytest.raises(DataError, match="no prepared data set in .* python -m aliasfree_jax.data.prepare"):
        RecordSource(tmp_path, "train")
    with pytest.raises(DataError, match="unknown split of .*'tran'. Did you mean 'train'"):
        RecordSource(packed, "tran")
    (tmp_path / "info.json").write_text(json.dumps({"format": 2, "shards": []}))
    with pytest.raises(DataError, match="has format 2, this version reads 1"):
        RecordSource(tmp_path, "train")
    with pytest.raises(DataError, match="no data at"):
        prepare(tmp_path / "nowhere", tmp_path / "out", **SIZES)


@pytest.fixture
def copy(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "copy")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"format": 1}', '{"format": 1, "splits": {"train": {}}, "class_names": []}']
    + ['{"format": 1, "splits": {"train": {"shards": [{"file": 1}]}}, "class_names": []}', "\0\0", "\udcff"],
)
def test_a_damaged_info_is_one_sentence(folders, copy, text):
    (copy / "info.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    message = r"info.json is damaged \(.*\). Remove info.json, and prepare the images again."
    for act in (
        lambda: RecordSource(copy, "train"),
        lambda: module.verify(copy),
        lambda: prepare(folders, copy, **SIZES),
    ):
        with pytest.raises(DataError, match=message):
            act()


def test_the_advice_for_a_damaged_info_works(folders, copy, monkeypatch):
    in_process(monkeypatch)
    (copy / "info.json").unlink()
    prepare(folders, copy, **SIZES)
    assert len(RecordSource(copy, "train")) == 9


def stored(values) -> bytes:
    out = io.BytesIO()
    np.save(out, values, allow_pickle=True)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "is missing or damaged"),
        (b"", "is missing or damaged"),
        (b"PK\3\4", "is missing or damaged"),
        (stored(np.zeros(9, np.int32))[:-3], "is missing or damaged"),
        (stored(np.array([print] * 9)), "is missing or damaged"),
        (stored(np.zeros(8, np.int32)), r"does not hold 9 labels in 0\.\.1"),
        (stored(np.zeros(9)), "does not hold 9 labels"),
        (stored(np.full(9, 2)), "does not hold 9 labels"),
        (stored(np.full(9, -1)), "does not hold 9 labels"),
    ],
)
def test_damaged_labels_are_one_sentence(copy, data, message):
    path = copy / "train-labels.npy"
    path.unlink() if data is None else path.write_bytes(data)
    for act in (lambda: RecordSource(copy, "train"), lambda: module.verify(copy)):
        with pytest.raises(DataError, match=f"train-labels.npy {message}.*Remove info.json, and prepare"):
            act()


def test_other_labels_are_found_by_verifying(copy):
    (copy / "train-labels.npy").write_bytes(stored(np.ones(9, np.int32)))
    with pytest.raises(DataError, match="train-labels.npy is damaged"):
        module.verify(copy)


@pytest.mark.parametrize("length", [0, 100, 70_000, -5])
def test_a_damaged_shard_is_one_sentence(copy, length):
    shard = copy / "val-00000-of-00001.array_record"
    shard.write_bytes(shard.read_bytes()[:length])
    with pytest.raises(DataError, match="damaged .*check it with .* --verify"):
        source = RecordSource(copy, "val")
        _ = [source[k] for k in range(3)]


@pytest.mark.parametrize("record", [b"", b"123", b"\0\0\0\0\5\0\xff\xff\xff\xff\xff"])
def test_damaged_records(record):
    with pytest.raises(DataError, match=f"a record of {len(record)} bytes is damaged"):
        unpack(record)
