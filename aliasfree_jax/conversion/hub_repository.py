"""One revision of a repository on a hub such as huggingface.co: its files, and why one cannot be had.

All is done by the library `huggingface_hub`, which keeps the files in its cache. It wraps what went wrong in
errors of its own, of many kinds; here each is one sentence.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from aliasfree_jax.errors import ConversionError

REFUSALS = (401, 403, 404)  # the hub is there; what was asked for is not
_COMMIT = re.compile(r"[0-9a-f]{40}")


class UnreachableError(ConversionError):
    """The hub does not answer."""


@dataclass(frozen=True)
class Repository:
    """One revision of a repository."""

    hub: ModuleType  # the library
    reference: str  # what the user wrote
    name: str
    revision: str

    @property
    def fixed(self) -> bool:
        """Whether the revision is a commit, whose files are always the same."""
        return bool(_COMMIT.fullmatch(self.revision))

    def cached(self, file: str) -> str | object | None:
        """The path in the cache; None if nothing is known of it; or a mark: there is no such file."""
        return self.hub.try_to_load_from_cache(self.name, file, revision=self.revision)

    def cached_directory(self) -> Path | None:
        """The directory in the cache with the files of the revision that were asked for before."""
        try:  # with nothing asked for, the library gives the directory, whatever is in it
            found = self.hub.snapshot_download(
                self.name, revision=self.revision, local_files_only=True, ignore_patterns="*"
            )
        except self._failures:
            return None
        return Path(found)

    def reach(self, file: str) -> None:
        """Raises if the revision cannot be read; not if it has no such `file`.

        It does so at once, while `get` tries again and again for a while.

        Raises:
          UnreachableError: the hub does not answer, or has a fault.
          ConversionError: there is no such repository or revision, or not for everybody.
        """
        try:
            self.hub.get_hf_file_metadata(self.hub.hf_hub_url(self.name, file, revision=self.revision))
        except self._failures as error:
            if not self._lacks_file(error):
                kind = ConversionError if _status(error) in REFUSALS else UnreachableError
                raise kind(f"{self.reference}: {self._reason(error)}") from error

    def get(self, file: str, revision: str = "") -> Path | None:
        """The path of `file` in the cache, after a download if needed; None if there is no such file.

        The library notes in its cache that there is none: `cached` says so later.

        Args:
          file: its name.
          revision: another one of the repository.

        Raises:
          ConversionError: it cannot be read, or not be stored; nothing of it is kept.
        """
        try:
            return Path(self.hub.hf_hub_download(self.name, file, revision=revision or self.revision))
        except self._failures as error:
            if self._lacks_file(error):
                return None
            if isinstance(error, OSError) and error.errno:
                reason = f"it cannot be stored in {self.hub.constants.HF_HUB_CACHE}: {error.strerror}."
            elif _status(error) is None and not isinstance(error, self.hub.errors.EntryNotFoundError):
                reason = f"the download broke off ({_first_line(error)}). Nothing is kept of it; try again."
            else:
                reason = self._reason(error)
            raise ConversionError(f"{self.reference}: {file}: {reason}") from error

    def files(self) -> list[str]:
        """The names of all files.

        Raises:
          ConversionError: the hub does not say.
        """
        limit = self.hub.constants.HF_HUB_ETAG_TIMEOUT
        try:
            about = self.hub.HfApi().model_info(self.name, revision=self.revision, timeout=limit)
        except self._failures as error:
            raise ConversionError(f"{self.reference}: {self._reason(error)}") from error
        return [file.rfilename for file in about.siblings or []]

    @property
    def _failures(self) -> tuple[type[Exception], ...]:
        """What the library raises if a request fails."""
        return OSError, ValueError, self.hub.errors.HTTPError  # the last one is of its library for HTTP

    def _lacks_file(self, error: Exception) -> bool:
        """Whether `error` says that the file is not there, but the revision is."""
        whole = (self.hub.errors.RepositoryNotFoundError, self.hub.errors.RevisionNotFoundError)
        return _status(error) == 404 and not isinstance(_cause(error), whole)

    def _reason(self, error: Exception) -> str:
        """Why the hub did not give what was wanted, and what can be done."""
        cause, status, errors = _cause(error), _status(error), self.hub.errors
        address = f"{self.hub.constants.ENDPOINT}/{self.name}"
        if isinstance(cause, errors.OfflineModeIsEnabled):
            return f"HF_HUB_OFFLINE is set, so {address} was not asked. Unset it to download."
        if isinstance(cause, errors.GatedRepoError):
            return f"the owner of {address} admits each reader. Ask there, then log in: hf auth login."
        if isinstance(cause, errors.RevisionNotFoundError):
            return f"{address} has no branch, tag or commit {self.revision!r}. See there under Files."
        if status in REFUSALS:
            return (
                f"there is no {address}, or it is private (status {status}). Check the name; to read a "
                "private repository, log in (hf auth login) or set HF_TOKEN."
            )
        if status is not None:
            return f"{address} cannot be read at present (status {status}). Try again later."
        return f"{address} cannot be reached ({_first_line(cause)}). Check the network and HF_ENDPOINT."


def _cause(error: BaseException) -> BaseException:
    """The failure of the request itself, which the library wraps: with the `response`, if there was any."""
    while error.__cause__ is not None and getattr(error, "response", None) is None:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    """The HTTP status that the hub answered; None if it did not."""
    return getattr(getattr(_cause(error), "response", None), "status_code", None)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
