"""One tree has the same classes, images, labels and warning in every container."""

import os
import shutil
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from aliasfree_jax.data import FolderSource
from aliasfree_jax.data.image_files import extensions, is_image
from aliasfree_jax.errors import ConfigError, DataError

KINDS = ("tar", "tar.gz", "tar.xz", "tar.bz2", "zip")
BYPRODUCTS = (
    "__pycache__ @eaDir lost+found .ipynb_checkpoints $RECYCLE.BIN #recycle __MACOSX .git @Recycle #snapshot"
).split() + ["System Volume Information"]
FILES = (
    "a.jpg b.JPG c.jfif d.jpe e.avif f.jp2 g.pgm h.WebP i.tar.png k.mpo j.tga notes.txt Thumbs.db "
    "desktop.ini jpg README .hidden.jpg .DS_Store ._a.jpg x.pdf y.h5 z.mpeg w.ps v.svg u.npy"
).split()
FOLDERS = "cat dog.png 10 9 empty deeper.jpg Ünïcode v1.2".split()


def pack(tree: Path, kind: str, prefix: str = "", folders: bool = True) -> Path:
    """Packs `tree` into an archive. Entries for folders are optional in both formats."""
    path = tree.parent / f"{tree.name}-{folders}.{kind}"
    entries = [p for p in sorted(tree.rglob("*")) if folders or p.is_file()]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for entry in entries:
                archive.write(entry, prefix + entry.relative_to(tree).as_posix())
    else:
        with tarfile.open(path, f"w:{kind[4:]}") as archive:
            for entry in entries:
                archive.add(entry, prefix + entry.relative_to(tree).as_posix(), recursive=False)
    return path


def grow(folder: Path, rng: np.random.Generator, depth: int = 0) -> None:
    """Random files and folders. Each file contains its path, which identifies it."""
    folder.mkdir(parents=True)
    for name in rng.choice(FILES, rng.integers(0, 5), replace=False):
        (folder / name).write_text(str(folder / name))
    if depth < 3:
        for name in rng.choice(FOLDERS + BYPRODUCTS, rng.integers(0, 4) + 2 * (depth == 0), replace=False):
            grow(folder / name, rng, depth + 1)


def seen(path: Path, split: str) -> tuple:
    """Everything that a source reports, without the name of its container."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            source = FolderSource(path, split)
        except DataError as error:
            return (str(error).replace(str(path), "PATH"),)
    assert len(caught) <= 1
    images = [(source.names[k], source[k].image, source[k].label) for k in range(len(source))]
    told = [str(warning.message).replace(str(path), "PATH") for warning in caught]
    return source.class_names, images, source.labels.tolist(), told


def by_definition(split: Path) -> dict[str, list[str]]:
    """The images of each class, by the simplest code."""
    classes: dict[str, list[str]] = {}
    for path in sorted(p for p in split.rglob("*") if p.is_file()):
        parts = path.relative_to(split).parts
        if len(parts) > 1 and is_image(path.name) and not {*parts} & {*BYPRODUCTS}:
            classes.setdefault(parts[0], []).append(str(path))
    return classes


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.slow) if seed > 5 else seed for seed in range(12)]
)
def test_any_tree(tmp_path, seed):
    rng = np.random.default_rng(seed)
    tree = tmp_path / "tree"
    tree.mkdir()
    grow(tree / "train", rng)
    (tree / "train/cat").mkdir(exist_ok=True)
    (tree / "train/cat/0.png").write_text(str(tree / "train/cat/0.png"))
    shutil.copytree(tree / "train", tree / "val")
    shutil.rmtree(tree / "val/cat")
    (tree / "val/cat").mkdir()
    (tree / "val/dog.png").mkdir(exist_ok=True)
    expected = by_definition(tree / "train")
    for split in ("train", "val"):
        directory = seen(tree, split)
        if len(directory) > 1:
            assert directory[0] == tuple(sorted(expected))
        if split == "train":
            assert [label for _, _, label in directory[1]] == [
                label for label, name in enumerate(sorted(expected)) for _ in expected[name]
            ]
            assert {data.decode() for _, data, _ in directory[1]} == {p for k in expected.values() for p in k}
        for kind in KINDS:
            assert seen(pack(tree, kind), split) == directory, kind
        # Without entries for folders, an empty folder is invisible and not reported. All else is the same.
        for kind in ("tar", "zip"):
            assert seen(pack(tree, kind, folders=False), split)[:3] == directory[:3] or len(directory) == 1


@pytest.fixture
def stray(tmp_path) -> Path:
    tree = tmp_path / "tree"
    names = (
        "a/0.png a/x.txt b/deep/1.JPEG b/y.TXT b/Thumbs.db a/@eaDir/0.png @eaDir/1.png .DS_Store 2.png c/z.md"
    )
    for name in names.split():
        path = tree / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tree


def test_all_that_is_ignored_is_named_once(stray):
    with pytest.warns(UserWarning) as caught:
        source = FolderSource(stray, "val")
    assert source.class_names == ("a", "b") and len(source) == 2
    assert [str(warning.message) for warning in caught] == [
        f"{stray}/val: ignored 9 files or folders: .db (1, first b/Thumbs.db), .md (1, first c/z.md), "
        ".txt (2, first a/x.txt), by-product folders (2, first @eaDir), class folders without images, which "
        "are not classes (1, first c), hidden (1, first .DS_Store), outside class folders (1, first 2.png)."
    ]


def test_hidden_files_alone_are_not_worth_a_word(stray):
    for path in list(stray.rglob("*")):
        if path.is_file() and path.suffix not in (".png", ".JPEG") or path.name == "2.png":
            path.unlink()
    for path in (stray / "val/@eaDir", stray / "val/a/@eaDir", stray / "val/c"):
        shutil.rmtree(path)
    (stray / "val/a/.DS_Store").write_text("")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(FolderSource(stray, "val")) == 2


def test_a_class_folder_that_is_empty_in_val_keeps_its_label(stray):
    shutil.copytree(stray / "val", stray / "train")
    (stray / "val/a/0.png").unlink()
    for path in (stray, pack(stray, "tar"), pack(stray, "zip")):
        with pytest.warns(UserWarning, match="class folders without images.*first a"):
            source = FolderSource(path, "val")
        assert source.class_names == ("a", "b") and source.labels.tolist() == [1]


def test_a_class_folder_that_is_empty_in_train_only(stray):
    shutil.copytree(stray / "val", stray / "train")
    (stray / "train/a/0.png").unlink()
    for path in (stray, pack(stray, "tar.gz"), pack(stray, "zip")):
        with pytest.raises(DataError, match="train does not have.*: a. train/a exists, but has no images"):
            FolderSource(path, "val")


def test_a_split_of_other_files_names_them(tmp_path):
    (tmp_path / "val/a").mkdir(parents=True)
    (tmp_path / "val/a/0.npy").write_text("")
    with pytest.raises(DataError, match=r"no images in .*Ignored there: 2 files.*\.npy \(1, first a/0.npy\)"):
        FolderSource(tmp_path, "val")


def test_a_class_may_be_called_as_a_split(tmp_path):
    for name in ("train/val/0.png", "train/test/0.png", "validation/val/0.png"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    for path in (tmp_path / "tree", pack(tmp_path / "tree", "zip")):
        source = FolderSource(path, "val")
        assert (source.split, source.class_names, len(source)) == ("validation", ("test", "val"), 1)


def test_a_zip_with_backslashes(stray):
    path = stray.parent / "windows.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(stray.rglob("*")):
            name = str(file.relative_to(stray)).replace("/", "\\") + "\\" * file.is_dir()
            archive.writestr(name, b"" if file.is_dir() else file.read_bytes())
    assert seen(path, "val") == seen(stray, "val")


@pytest.mark.parametrize("name", ["a/link.png", "a/@eaDir/link.png", "a/link"])
def test_links_in_a_tar(stray, name):
    """Links that look like images are refused; others are counted like any file that is not an image."""
    (stray / "val" / name).symlink_to(stray / "val/a/0.png")
    path = pack(stray, "tar.gz")
    if name == "a/link.png":
        with pytest.raises(DataError, match="is a link or device, not a file"):
            FolderSource(path, "val")
    else:
        assert seen(path, "val") == seen(stray, "val")


def test_extensions_are_those_that_pillow_opens():
    known = {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".ppm",
        ".pgm",
        ".tif",
        ".tiff",
    }
    assert known | {".jp2", ".tga", ".mpo"} <= extensions()
    assert not extensions() & {
        ".pdf",
        ".ps",
        ".eps",
        ".mpg",
        ".mpeg",
        ".h5",
        ".hdf",
        ".grib",
        ".bufr",
        ".palm",
    }
    assert is_image("a/b.JPEG") and not is_image("a.png/jpg") and not is_image("a/.b.png")


def test_folders_that_cannot_be_listed_and_links_in_circles(stray, monkeypatch):
    (stray / "val/a/self").symlink_to(stray / "val")
    with pytest.raises(DataError, match="val/a/self is a link to a folder that contains it"):
        FolderSource(stray, "val")
    (stray / "val/a/self").unlink()
    listing = os.scandir

    def refusing(path):
        if str(path).endswith("val/b"):
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match="cannot list .*val/b: Permission denied"):
        FolderSource(stray, "val")


def test_addresses_are_refused():
    with pytest.raises(ConfigError, match=r"data.path is 'gs://bucket/data', an address"):
        FolderSource("gs://bucket/data", "val")
