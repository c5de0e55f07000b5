"""Weights by their name on a hub such as huggingface.co: hf://owner/name[@revision][/file]."""

import hashlib
import os
import posixpath
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from aliasfree_jax.conversion.hub_repository import Repository, UnreachableError
from aliasfree_jax.errors import ConversionError, listed, needed

FORM = "hf://owner/name[@revision][/file]"
STANDARD = ("model.safetensors", "pytorch_model.bin")  # as timm and transformers name their weights
COMPANIONS = CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"  # what describes them
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".th", ".ckpt", ".tar")
INDEX = ".index.json"  # of weights in several files
SHOWN = 8  # files that a message lists
_REFERENCE = re.compile(
    r"hf://(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>refs/(pr|convert)/[^/@]+|[^/@]+))?(/(?P<file>[^\\]+))?",
    re.ASCII,
)


def fetch(reference: str, tell: Callable[[str], None] = print) -> Path:
    """The file of weights that a reference names, in the hub's own cache.

    The repository's config.json and preprocessor_config.json, if it has them, are in the same directory.
    What the cache has of a commit is used without a network. What it has of a branch or tag is used only if
    the hub cannot be reached. The content is compared with the checksum that the hub states, each time. (A
    cache without links, as on some Windows machines, does not keep the checksum: there, the library compares
    the size.)

    Args:
      reference: hf://owner/name[@revision][/file]. The revision is a branch (by default, main), a tag or a
        commit. Without a file: model.safetensors, else pytorch_model.bin, else the only file of weights.
      tell: is called with a line if the hub cannot be reached and the cache is used.

    Raises:
      ConversionError: there is no such repository, revision or file; the hub cannot be reached; or the
        download failed. The cache keeps nothing that is damaged.
      MissingPackageError: huggingface_hub is not installed.
    """
    repository, file = _read(reference)
    candidates = [file] if file else STANDARD
    weights = _known(repository, candidates) if repository.fixed else None
    if weights is None:
        try:
            repository.reach(candidates[0])
        except UnreachableError as error:
            weights, note = _older(repository, file, error)
            tell(note)
        else:
            weights = _download(repository, file, candidates)
    for path in [weights, *map(weights.with_name, COMPANIONS)]:
        _verify(path, reference)
    return weights


def _read(reference: str) -> tuple[Repository, str]:
    """The revision of a repository, and the file in it, "" if the reference names none."""
    found = _REFERENCE.fullmatch(reference)
    if found is None or {"", ".", ".."} & set((found["file"] or "-").split("/")):
        _refuse_form(reference)
    needed("huggingface_hub.utils", reference)  # the library's own modules are there once they are imported
    hub = needed("huggingface_hub", reference)
    try:
        hub.utils.validate_repo_id(found["name"])
    except ValueError as error:
        _refuse_form(reference, f": {error}".rstrip("."))
    repository = Repository(hub, reference, found["name"], found["revision"] or "main")
    file = found["file"] or ""
    if file.endswith(INDEX):
        _refuse_parts(reference, file)
    return repository, file


def _refuse_form(reference: str, why: str = "") -> NoReturn:
    raise ConversionError(
        f"{reference!r} is no name on a hub{why}. Expected {FORM}, for instance hf://timm/resnet18.a1_in1k."
    )


def _refuse_parts(reference: object, index: str) -> NoReturn:
    raise ConversionError(
        f"{reference}: its weights are in several files, listed in {index}. That is not "
        "supported: save them as one file with the library that wrote them."
    )


def _beside(weights: str) -> list[str]:
    """The names of what describes the file `weights` of a repository."""
    return [posixpath.join(posixpath.dirname(weights), name) for name in COMPANIONS]


def _known(repository: Repository, candidates: Sequence[str]) -> Path | None:
    """The weights in the cache, if it is sure that the hub would give the same."""
    for name in candidates:
        found = repository.cached(name)
        if isinstance(found, str) and all(map(repository.cached, _beside(name))):
            return Path(found)
        if found is None:
            break
    return None


def _older(repository: Repository, file: str, error: UnreachableError) -> tuple[Path, str]:
    """The weights of the revision as the cache has them, and what to tell of them; else raises `error`."""
    directory = repository.cached_directory()
    if directory is None:
        raise error
    names = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]
    if not any(name == file or not file and name.endswith(ENDINGS) for name in names):
        raise error
    name = chosen(repository.reference, file, names)
    unknown = [other for other in _beside(name) if repository.cached(other) is None]
    without = f", which may lack {' and '.join(unknown)}" if unknown else ""
    return directory / name, f"{error} Used what the cache has{without}: {directory / name}."


def _download(repository: Repository, file: str, candidates: Sequence[str]) -> Path:
    for name in candidates:
        weights = repository.get(name)
        if weights is not None:
            break
    else:
        name = chosen(repository.reference, file, repository.files())
        weights = repository.get(name)
    if weights is None:
        raise ConversionError(
            f"{repository.reference}: {name} is listed there, but cannot be read (status 404). Try later."
        )
    commit = weights.parents[name.count("/")].name  # a branch may move on
    for other in _beside(name):
        repository.get(other, commit)
    return weights


def is_weights(name: str) -> bool:
    """Whether a file of that name holds weights, or says in which files they are."""
    return name.endswith((*ENDINGS, INDEX))


def chosen(reference: object, file: str, names: Sequence[str], advice: str = f"Form: {FORM}.") -> str:
    """The file of weights to take: `file` or, if that is "", the best of all files `names`.

    Raises:
      ConversionError: there is none, or several; it ends with `advice`.
    """
    weights = sorted(name for name in names if name.endswith(ENDINGS))
    indices = sorted(name for name in names if name.endswith(INDEX))
    for name in [file] if file else STANDARD:
        if name in names:
            return name
    if not file and indices:
        _refuse_parts(reference, indices[0])
    if not file and len(weights) == 1:
        return weights[0]
    known = f"it has {listed(weights, SHOWN)}" if weights else "it has no file of weights"
    missing = file or " nor ".join(STANDARD)
    raise ConversionError(f"{reference} has no {missing}; {known}. {advice}")


def _verify(path: Path, reference: str) -> None:
    """Compares a file with the checksum that the hub stated: the name, in the cache, of what `path` links to.

    Raises:
      ConversionError: they differ; the file is removed from the cache.
    """
    stated = Path(os.readlink(path)).name if path.is_symlink() else ""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", stated):
        return
    with path.open("rb") as file:
        if len(stated) == 64:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        else:  # of a blob of git
            size = os.fstat(file.fileno()).st_size
            found = hashlib.file_digest(file, lambda: hashlib.sha1(b"blob %d\0" % size)).hexdigest()
    if found != stated:
        _remove(path)
        raise ConversionError(
            f"{reference}: {path.name} has the checksum {found[:12]}, the hub states {stated[:12]}: damaged "
            "on its way or on this disk. It is removed from the cache; try again."
        )


def _remove(path: Path) -> None:
    """Removes what `path` links to from the cache, with the links of all commits to it."""
    content = path.resolve()
    snapshots = next(parent for parent in path.parents if parent.name == "snapshots")
    for link in snapshots.parent.rglob("*"):
        if link.is_symlink() and link.resolve() == content:
            link.unlink()
    content.unlink(missing_ok=True)
