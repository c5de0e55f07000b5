import pickle
import shutil
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from aliasfree_jax.data import FolderSource, archives
from aliasfree_jax.data.decode import decode
from aliasfree_jax.errors import DataError


def pack(tree: Path, kind: str, prefix: str) -> Path:
    """Packs the tree into an archive of this kind. The members' names start with `prefix`."""
    path = tree.parent / f"packed.{kind}"
    files = sorted(p for p in tree.rglob("*") if p.is_file())
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, prefix + file.relative_to(tree).as_posix())
    else:
        with tarfile.open(
            path, {"tar": "w:", "tar.gz": "w:gz", "tar.xz": "w:xz", "tgz": "w:gz"}[kind]
        ) as archive:
            for file in files:
                archive.add(file, prefix + file.relative_to(tree).as_posix())
    return path


def contents(source: FolderSource) -> list[tuple[bytes, int]]:
    return [(source[i].image, source[i].label) for i in range(len(source))]


def colours(source: FolderSource) -> list[int]:
    return [int(decode(source[i].image, "")[0, 0, 0]) for i in range(len(source))]


def test_directory(tree):
    train = FolderSource(tree, "train")
    assert train.class_names == ("cat", "dog")
    assert colours(train) == [0, 10, 20, 30, 40]
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    assert train[3].name == f"{tree}/train/dog/a.png"
    assert colours(FolderSource(str(tree), "val")) == [50, 60, 70]


@pytest.mark.parametrize("prefix", ["", "./", "some-name/"])
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tgz", "tar.xz", "zip"])
def test_archives_agree_with_the_directory(tree, kind, prefix):
    packed = pack(tree, kind, prefix)
    for split in ("train", "val"):
        expected, source = FolderSource(tree, split), FolderSource(packed, split)
        assert source.class_names == expected.class_names
        assert contents(source) == contents(expected)
        assert contents(pickle.loads(pickle.dumps(source))) == contents(expected)


def test_tree_one_folder_down(tree):
    assert len(FolderSource(tree.parent, "train")) == 5


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_many_threads_read_one_archive(tree, kind):
    source = FolderSource(pack(tree, kind, ""), "train")
    expected = contents(source)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda i: (source[i % 5].image, source[i % 5].label), range(500)))
    assert read == expected * 100


@pytest.mark.parametrize("kind", ["", "tar", "tar.gz"])
@pytest.mark.parametrize("name", ["validation", "test"])
def test_val_goes_by_other_names(tree, name, kind):
    (tree / "val").rename(tree / name)
    source = FolderSource(pack(tree, kind, "x/") if kind else tree, "val")
    assert (source.split, len(source)) == (name, 3)


def test_val_itself_comes_first(tree):
    shutil.copytree(tree / "train", tree / "test")
    assert FolderSource(pack(tree, "tar.gz", ""), "val").split == "val"


def test_only_val_is_enough_for_evaluation(tree):
    shutil.rmtree(tree / "train")
    assert len(FolderSource(tree, "val")) == 3
    for path in (tree, pack(tree, "tar", "x/"), pack(tree, "tar.xz", "")):
        with pytest.raises(DataError, match="no split 'train'.*it has the splits val"):
            FolderSource(path, "train")


def test_classes_are_those_of_train(tree):
    shutil.rmtree(tree / "val" / "cat")
    source = FolderSource(tree, "val")
    assert source.class_names == ("cat", "dog") and source.labels.tolist() == [1, 1]


def test_class_that_train_does_not_have(tree):
    (tree / "val" / "cat").rename(tree / "val" / "mouse")
    for path in (tree, pack(tree, "tar", "")):
        with pytest.raises(DataError, match="1 classes that train does not have.*mouse"):
            FolderSource(path, "val")


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"no data at .*/missing \(data.path\).*image-net.org.*CIFAR-10"):
        FolderSource(tmp_path / "missing", "train")


def test_misspelt_split(tree):
    with pytest.raises(DataError, match="no split 'trian'.*it has the splits train, val"):
        FolderSource(tree, "trian")


def test_no_tree_at_all(tmp_path):
    with pytest.raises(DataError, match="no split 'val'.*expected <split>/<class>"):
        FolderSource(tmp_path, "val")


def test_split_without_images(tree):
    for file in (tree / "val").rglob("*.png"):
        file.unlink()
    with pytest.raises(DataError, match="no images in the class folders of .*/val"):
        FolderSource(tree, "val")


def test_two_trees(tree):
    shutil.copytree(tree, tree.parent / "second")
    with pytest.raises(DataError, match="several trees with the split 'val': second/val, tree/val"):
        FolderSource(tree.parent, "val")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz", "zip"])
def test_half_an_archive(tree, kind):
    packed = pack(tree, kind, "")
    whole = packed.read_bytes()
    for share in (0.1, 0.3, 0.45):  # the last half of a small tar is padding
        packed.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match="packed.*is the download complete"):
            FolderSource(packed, "train")


@pytest.mark.parametrize("rest", [0, 100])
def test_tar_cut_where_tarfile_does_not_notice(tree, rest):
    packed = pack(tree, "tar", "")
    with tarfile.open(packed) as archive:
        third = archive.getmembers()[2].offset  # where the second file ends
    packed.write_bytes(packed.read_bytes()[: third + rest])
    with pytest.raises(DataError, match="packed.tar.*is the download complete"):
        FolderSource(packed, "train")


def test_empty_tar(tmp_path):
    tarfile.open(tmp_path / "empty.tar", "w").close()
    with pytest.raises(DataError, match="empty"):
        FolderSource(tmp_path / "empty.tar", "train")


def test_forked_process_opens_its_own_zip(tree, monkeypatch):
    source = FolderSource(pack(tree, "zip", ""), "train")
    expected, handle = contents(source), source._reader._open[1]
    monkeypatch.setattr(archives.os, "getpid", lambda: -1)
    assert contents(source) == expected and source._reader._open[1] is not handle


def test_not_an_archive(tmp_path):
    (tmp_path / "page.tar").write_text("<html>404</html>" * 100)
    with pytest.raises(DataError, match="neither a directory nor a complete .tar"):
        FolderSource(tmp_path / "page.tar", "val")


def test_archive_that_shrinks_later_names_the_image(tree):
    packed = pack(tree, "tar", "")
    source = FolderSource(packed, "val")
    packed.write_bytes(packed.read_bytes()[:2000])
    with pytest.raises(DataError, match="cannot read .*packed.tar/val/dog/y.png.*download complete"):
        source[2]


def test_damaged_zip_member_names_the_image(tree):
    packed = pack(tree, "zip", "")
    source = FolderSource(packed, "train")
    data = bytearray(packed.read_bytes())
    data[data.find(b"train/cat/a.png") + 20] ^= 255
    packed.write_bytes(data)
    with pytest.raises(DataError, match="cannot read .*packed.zip/train/cat/a.png: cannot unpack"):
        source[0]


def test_deleted_file_names_the_image(tree):
    source = FolderSource(tree, "val")
    (tree / "val/cat/z.png").unlink()
    with pytest.raises(DataError, match="cannot read .*val/cat/z.png"):
        source[0]


def test_links_in_a_tar_are_refused(tree):
    (tree / "val/cat/link.png").symlink_to(tree / "val/cat/z.png")
    with pytest.raises(DataError, match="link.png in the tar is a link.*--dereference"):
        FolderSource(pack(tree, "tar", ""), "val")
    assert len(FolderSource(tree, "val")) == 4


def test_compressed_tar_too_large_for_memory(tree, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES_IN_MEMORY", 100)
    with pytest.raises(DataError, match="decompress it to .tar"):
        FolderSource(pack(tree, "tar.gz", ""), "train")


def test_order_is_by_path(tree):
    source = FolderSource(tree, "train")
    names = [source[i].name for i in range(len(source))]
    assert names == sorted(names)
    assert np.all(np.diff(source.labels) >= 0)
