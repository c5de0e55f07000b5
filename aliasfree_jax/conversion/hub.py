"""Weights by their name on a hub such as huggingface.co, through `huggingface_hub` and its cache."""

import hashlib
import itertools
import os
import posixpath
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from aliasfree_jax.errors import ConversionError, listed, needed

FORM = "hf://owner/name[@revision][/file]"
STANDARD = ("model.safetensors", "pytorch_model.bin")  # as timm and transformers name their weights
COMPANIONS = ("config.json", "preprocessor_config.json")
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".th", ".ckpt", ".tar")
INDEX = ".index.json"  # of weights in several files
REFUSALS = (401, 403, 404)  # the hub is there, what was asked for is not
SHOWN = 8  # files that a message lists
_REFERENCE = re.compile(
    r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>refs/(pr|convert)/[^/@]+|[^/@]+))?(/(?P<file>.+))?",
    re.ASCII,
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class _Wanted:
    """What a reference asks for; `file` is "" if it names none."""

    reference: str
    repository: str
    revision: str
    file: str

    @property
    def candidates(self) -> Sequence[str]:
        return [self.file] if self.file else STANDARD

    def beside(self, weights: str) -> list[str]:
        """The names in the repository of what describes its file `weights`."""
        return [posixpath.join(posixpath.dirname(weights), name) for name in COMPANIONS]


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
    wanted = _read(reference)
    hub = needed("huggingface_hub", reference)
    try:
        weights = _known(hub, wanted) if _COMMIT.fullmatch(wanted.revision) else None
        names = [] if weights else _names(hub, wanted)
    except _failures(hub) as error:
        reason = _reason(hub, wanted, error)
        weights = None if _status(error) in REFUSALS else _older(hub, wanted)
        if weights is None:
            raise ConversionError(f"{reference}: {reason}") from error
        tell(f"{reference}: {reason} Used what the cache has: {weights}.")
    weights = weights or _download(hub, wanted, names)
    for path in [weights, *map(weights.with_name, COMPANIONS)]:
        _verify(path, wanted)
    return weights


def _read(reference: str) -> _Wanted:
    found = _REFERENCE.fullmatch(reference)
    if found is None or {"", ".", ".."} & set((found["file"] or "-").split("/")):
        raise ConversionError(
            f"{reference!r} is no name on a hub. Expected {FORM}, for instance hf://timm/resnet18.a1_in1k."
        )
    return _Wanted(reference, found["repository"], found["revision"] or "main", found["file"] or "")


def _known(hub: ModuleType, wanted: _Wanted) -> Path | None:
    """The weights in the cache, if it is sure that the hub would give the same."""

    def look_up(name: str) -> Any:  # a path; None: never asked for; or a mark: there is no such file
        return hub.try_to_load_from_cache(wanted.repository, name, revision=wanted.revision)

    for name in wanted.candidates:
        found = look_up(name)
        if isinstance(found, str) and None not in map(look_up, wanted.beside(name)):
            return Path(found)
        if found is None:
            break
    return None


def _names(hub: ModuleType, wanted: _Wanted) -> list[str]:
    """The files of the repository. This request fails at once; the library's download tries for a while."""
    about = hub.HfApi().model_info(
        wanted.repository, revision=wanted.revision, timeout=hub.constants.HF_HUB_ETAG_TIMEOUT
    )
    return [file.rfilename for file in about.siblings or []]


def _older(hub: ModuleType, wanted: _Wanted) -> Path | None:
    """The weights of the revision as the cache has them; None if it has none."""
    try:  # with nothing asked for, the library gives the directory, whatever is in it
        found = hub.snapshot_download(
            wanted.repository, revision=wanted.revision, local_files_only=True, ignore_patterns="*"
        )
    except _failures(hub):
        return None
    directory = Path(found)
    names = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]
    if not any(name == wanted.file or not wanted.file and name.endswith(ENDINGS) for name in names):
        return None
    return directory / _chosen(wanted, names)


def _chosen(wanted: _Wanted, names: list[str]) -> str:
    """The file of weights to take, of all files `names` of the repository."""
    weights = sorted(name for name in names if name.endswith(ENDINGS))
    indices = sorted(name for name in names if name.endswith(INDEX) and wanted.file in ("", name))
    found = [name for name in wanted.candidates if name in names and name not in indices]
    if not (found or indices or wanted.file) and len(weights) == 1:
        found = weights
    if found:
        return found[0]
    if indices:
        raise ConversionError(
            f"{wanted.reference}: its weights are in several files, listed in {indices[0]}. That is not "
            "supported: save them as one file with the library that wrote them."
        )
    known = f"it has {listed(weights, SHOWN)}" if weights else "it has no file of weights"
    missing = " nor ".join(wanted.candidates)
    raise ConversionError(f"{wanted.reference}: the repository has no {missing}; {known}. Form: {FORM}.")


def _download(hub: ModuleType, wanted: _Wanted, names: list[str]) -> Path:
    chosen = _chosen(wanted, names)
    weights = _get(hub, wanted, chosen, wanted.revision)
    commit = weights.parents[chosen.count("/")].name  # the branch may move on
    for name in wanted.beside(chosen):
        if name in names:
            _get(hub, wanted, name, commit)
    earlier = itertools.takewhile(lambda name: name != chosen, wanted.candidates)
    for name in {*earlier, *wanted.beside(chosen)}.difference(names):
        with suppress(*_failures(hub)):  # the library notes what there is not: a later call knows it offline
            hub.hf_hub_download(wanted.repository, name, revision=commit)
    return weights


def _get(hub: ModuleType, wanted: _Wanted, name: str, revision: str) -> Path:
    try:
        return Path(hub.hf_hub_download(wanted.repository, name, revision=revision))
    except _failures(hub) as error:
        if isinstance(error, OSError) and error.errno:
            reason = f"it cannot be stored in {hub.constants.HF_HUB_CACHE}: {error.strerror}."
        elif _status(error) is None and not isinstance(error, hub.errors.EntryNotFoundError):
            reason = f"the download broke off ({_first_line(error)}). Nothing is kept of it; try again."
        else:
            reason = _reason(hub, wanted, error)
        raise ConversionError(f"{wanted.reference}: {name}: {reason}") from error


def _failures(hub: ModuleType) -> tuple[type[Exception], ...]:
    """What the library raises if a request fails."""
    return OSError, ValueError, hub.errors.HTTPError  # the last one is of its library for HTTP


def _cause(error: BaseException) -> BaseException:
    """The failure of the request itself, which the library wraps: with the `response`, if there was any."""
    while error.__cause__ is not None and getattr(error, "response", None) is None:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    """The HTTP status that the hub answered; None if it did not."""
    return getattr(getattr(_cause(error), "response", None), "status_code", None)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _reason(hub: ModuleType, wanted: _Wanted, error: Exception) -> str:
    """Why the hub did not give what was wanted, and what can be done."""
    cause, status = _cause(error), _status(error)
    address = f"{hub.constants.ENDPOINT}/{wanted.repository}"
    if isinstance(cause, hub.errors.HFValidationError):
        return f"{_first_line(cause)} Form: {FORM}."
    if isinstance(cause, hub.errors.OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set, so {address} was not asked. Unset it to download."
    if isinstance(cause, hub.errors.GatedRepoError):
        return f"the owner of {address} admits each reader. Ask there, then log in: hf auth login."
    if isinstance(cause, hub.errors.RevisionNotFoundError):
        return f"{address} has no branch, tag or commit {wanted.revision!r}. See there under Files."
    if status in REFUSALS:
        return (
            f"there is no {address}, or it is private (status {status}). Check the name; to read a private "
            "repository, log in (hf auth login) or set HF_TOKEN."
        )
    if status is not None:
        return f"{address} cannot be read at present (status {status}). Try again later."
    return f"{address} cannot be reached ({_first_line(cause)}). Check the network and HF_ENDPOINT."


def _verify(path: Path, wanted: _Wanted) -> None:
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
            f"{wanted.reference}: {path.name} has the checksum {found[:12]}, the hub states {stated[:12]}: "
            "damaged on its way or on this disk. It is removed from the cache; try again."
        )


def _remove(path: Path) -> None:
    """Removes what `path` links to from the cache, with the links of all commits to it."""
    content = path.resolve()
    snapshots = next(parent for parent in path.parents if parent.name == "snapshots")
    for link in snapshots.parent.rglob("*"):
        if link.is_symlink() and link.resolve() == content:
            link.unlink()
    content.unlink(missing_ok=True)
