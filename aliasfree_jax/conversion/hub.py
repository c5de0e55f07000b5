"""Downloads weights from a hub such as huggingface.co: `hf://owner/name[@revision][/file]`."""

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
STANDARD = ("model.safetensors", "pytorch_model.bin")  # the names that timm and transformers use
COMPANIONS = CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"  # descriptions of the weights
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".th", ".ckpt", ".tar")
INDEX = ".index.json"  # an index of weights in several files
SHOWN = 8  # number of files that a message lists
_REFERENCE = re.compile(
    r"hf://(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>refs/(pr|convert)/[^/@]+|[^/@]+))?(/(?P<file>[^\\]+))?",
    re.ASCII,
)


def fetch(reference: str, tell: Callable[[str], None] = print) -> Path:
    """Downloads the file of weights that a reference names into the hub's cache, and returns its path.

    The repository's `config.json` and `preprocessor_config.json`, if there are any, are in the same
    directory. Cached files of a commit are used without network access. Cached files of a branch or tag are
    used only if the hub cannot be reached. The content is compared with the hub's checksum each time. A cache
    without symbolic links (some Windows machines) does not keep the checksum: there, the library compares the
    size.

    Args:
      reference: `hf://owner/name[@revision][/file]`. The revision is a branch (default "main"), a tag or a
        commit. Without a file: model.safetensors, else pytorch_model.bin, else the only file of weights.
      tell: Called with a message if the hub cannot be reached and the cache is used.

    Returns:
      The path of the file in the cache.

    Raises:
      ConversionError: The repository, revision or file does not exist, the hub cannot be reached, or the
        download failed. The cache keeps no damaged file.
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
    """Parses a reference into a repository and a file. The file is "" if the reference names none."""
    found = _REFERENCE.fullmatch(reference)
    if found is None or {"", ".", ".."} & set((found["file"] or "-").split("/")):
        _refuse_form(reference)
    needed("huggingface_hub.utils", reference)  # makes hub.utils available
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
        f"{reference!r} does not name a repository on a hub{why}. Expected {FORM}, for instance "
        "hf://timm/resnet18.a1_in1k."
    )


def _refuse_parts(reference: object, index: str) -> NoReturn:
    raise ConversionError(
        f"{reference}: its weights are split over several files, listed in {index}. That is "
        "not supported. Save them as one file with the library that wrote them."
    )


def _beside(weights: str) -> list[str]:
    """The names of the descriptions in the directory of the file `weights`."""
    return [posixpath.join(posixpath.dirname(weights), name) for name in COMPANIONS]


def _known(repository: Repository, candidates: Sequence[str]) -> Path | None:
    """The cached weights, if the hub would certainly return the same file. Else None."""
    for name in candidates:
        found = repository.cached(name)
        if isinstance(found, str) and all(map(repository.cached, _beside(name))):
            return Path(found)
        if found is None:
            break
    return None


def _older(repository: Repository, file: str, error: UnreachableError) -> tuple[Path, str]:
    """The cached weights of the revision and a message about them. Raises `error` if there are none."""
    directory = repository.cached_directory()
    if directory is None:
        raise error
    names = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]
    if not any(name == file or not file and name.endswith(ENDINGS) for name in names):
        raise error
    name = chosen(repository.reference, file, names)
    unknown = [other for other in _beside(name) if repository.cached(other) is None]
    without = f" (it may lack {' and '.join(unknown)})" if unknown else ""
    return directory / name, f"{error} The cached file is used{without}: {directory / name}."


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
            f"{repository.reference}: the hub lists {name} but does not return it (status 404). Try later."
        )
    commit = weights.parents[name.count("/")].name  # all files of one commit: the branch may change meanwhile
    for other in _beside(name):
        repository.get(other, commit)
    return weights


def is_weights(name: str) -> bool:
    """Whether a file with this name holds weights or an index of files with weights."""
    return name.endswith((*ENDINGS, INDEX))


def chosen(reference: object, file: str, names: Sequence[str], advice: str = f"Form: {FORM}.") -> str:
    """Chooses the file of weights.

    Args:
      reference: The repository or directory, for messages.
      file: The file to choose. "": the best of `names`.
      names: All files.
      advice: End of the error message.

    Raises:
      ConversionError: There is no such file, or there are several files of weights.
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
    known = f"Files of weights: {listed(weights, SHOWN)}" if weights else "It has no file of weights"
    missing = file or " nor ".join(STANDARD)
    raise ConversionError(f"{reference} has no {missing}. {known}. {advice}")


def _verify(path: Path, reference: str) -> None:
    """Compares a cached file with the hub's checksum: the name of the file that `path` links to.

    Raises:
      ConversionError: They differ. The file is removed from the cache.
    """
    stated = Path(os.readlink(path)).name if path.is_symlink() else ""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", stated):
        return
    with path.open("rb") as file:
        if len(stated) == 64:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        else:  # the hash of a git blob
            size = os.fstat(file.fileno()).st_size
            found = hashlib.file_digest(file, lambda: hashlib.sha1(b"blob %d\0" % size)).hexdigest()
    if found != stated:
        _remove(path)
        raise ConversionError(
            f"{reference}: {path.name} has the checksum {found[:12]}, the hub states {stated[:12]}. The file "
            "is damaged, so it was removed from the cache. Try again."
        )


def _remove(path: Path) -> None:
    """Removes the file that `path` links to from the cache, and all links to it."""
    content = path.resolve()
    snapshots = next(parent for parent in path.parents if parent.name == "snapshots")
    for link in snapshots.parent.rglob("*"):
        if link.is_symlink() and link.resolve() == content:
            link.unlink()
    content.unlink(missing_ok=True)
