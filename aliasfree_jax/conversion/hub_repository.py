"""Reads one revision of a repository on a hub such as huggingface.co.

The library `huggingface_hub` downloads the files and caches them. It wraps failures in many kinds of errors.
This module turns each into one sentence.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from aliasfree_jax.errors import ConversionError

REFUSALS = (401, 403, 404)  # the hub answers, but refuses or lacks the file
_COMMIT = re.compile(r"[0-9a-f]{40}")


class UnreachableError(ConversionError):
    """The hub does not answer or has a fault."""


@dataclass(frozen=True)
class Repository:
    """One revision of a repository.

    Attributes:
      hub: The module `huggingface_hub`.
      reference: The reference that the user wrote, for messages.
      name: "owner/name".
      revision: A branch, tag or commit.
    """

    hub: ModuleType
    reference: str
    name: str
    revision: str

    @property
    def fixed(self) -> bool:
        """Whether the revision is a commit. The files of a commit never change."""
        return bool(_COMMIT.fullmatch(self.revision))

    def cached(self, file: str) -> str | object | None:
        """Looks a file up in the cache.

        Returns:
          Its path. None if the cache does not know the file. The library's marker object if the repository
          has no such file.
        """
        return self.hub.try_to_load_from_cache(self.name, file, revision=self.revision)

    def cached_directory(self) -> Path | None:
        """Returns the cache directory of the revision. None if nothing was downloaded."""
        try:  # without files to check, the library returns the directory
            found = self.hub.snapshot_download(
                self.name, revision=self.revision, local_files_only=True, ignore_patterns="*"
            )
        except self._failures:
            return None
        return Path(found)

    def reach(self, file: str) -> None:
        """Checks that the revision can be read. A missing `file` is no error.

        It fails at once. `get` repeats failed requests for a while.

        Raises:
          UnreachableError: The hub does not answer or has a fault.
          ConversionError: The repository or revision does not exist, or is not public.
        """
        try:
            self.hub.get_hf_file_metadata(self.hub.hf_hub_url(self.name, file, revision=self.revision))
        except self._failures as error:
            if not self._lacks_file(error):
                kind = ConversionError if _status(error) in REFUSALS else UnreachableError
                raise kind(f"{self.reference}: {self._reason(error)}") from error

    def get(self, file: str, revision: str = "") -> Path | None:
        """Downloads a file, unless it is cached.

        The library notes missing files in its cache. `cached` returns that mark later.

        Args:
          file: Name of the file.
          revision: Another revision of the repository. "": the revision of this object.

        Returns:
          The path in the cache. None if the repository has no such file.

        Raises:
          ConversionError: The file cannot be read or stored. No part of it is kept.
        """
        try:
            return Path(self.hub.hf_hub_download(self.name, file, revision=revision or self.revision))
        except self._failures as error:
            if self._lacks_file(error):
                return None
            if isinstance(error, OSError) and error.errno:
                reason = f"it cannot be stored in {self.hub.constants.HF_HUB_CACHE}: {error.strerror}."
            elif _status(error) is None and not isinstance(error, self.hub.errors.EntryNotFoundError):
                reason = f"the download failed ({_first_line(error)}). No part of it is kept. Try again."
            else:
                reason = self._reason(error)
            raise ConversionError(f"{self.reference}: {file}: {reason}") from error

    def files(self) -> list[str]:
        """Returns the names of all files.

        Raises:
          ConversionError: The hub does not return them.
        """
        limit = self.hub.constants.HF_HUB_ETAG_TIMEOUT
        try:
            about = self.hub.HfApi().model_info(self.name, revision=self.revision, timeout=limit)
        except self._failures as error:
            raise ConversionError(f"{self.reference}: {self._reason(error)}") from error
        return [file.rfilename for file in about.siblings or []]

    @property
    def _failures(self) -> tuple[type[Exception], ...]:
        """The errors of the library when a request fails. `HTTPError` belongs to its HTTP library."""
        return OSError, ValueError, self.hub.errors.HTTPError

    def _lacks_file(self, error: Exception) -> bool:
        """Whether `error` means that the revision exists but the file does not."""
        whole = (self.hub.errors.RepositoryNotFoundError, self.hub.errors.RevisionNotFoundError)
        return _status(error) == 404 and not isinstance(_cause(error), whole)

    def _reason(self, error: Exception) -> str:
        """Why the request failed, and what the user can do."""
        cause, status, errors = _cause(error), _status(error), self.hub.errors
        address = f"{self.hub.constants.ENDPOINT}/{self.name}"
        if isinstance(cause, errors.OfflineModeIsEnabled):
            return f"HF_HUB_OFFLINE is set, so {address} was not asked. Unset it to download."
        if isinstance(cause, errors.GatedRepoError):
            return f"{address} needs its owner's permission. Ask for it there, then log in: hf auth login."
        if isinstance(cause, errors.RevisionNotFoundError):
            return (
                f"{address} has no branch, tag or commit {self.revision!r}. The page lists them under Files."
            )
        if status in REFUSALS:
            return (
                f"{address} does not exist or is private (status {status}). Check the name. To read a "
                "private repository, log in (hf auth login) or set HF_TOKEN."
            )
        if status is not None:
            return f"{address} cannot be read now (status {status}). Try again later."
        return f"{address} cannot be reached ({_first_line(cause)}). Check the network and HF_ENDPOINT."


def _cause(error: BaseException) -> BaseException:
    """The original error that the library wraps. It has the `response`, if there was one."""
    while error.__cause__ is not None and getattr(error, "response", None) is None:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    """The HTTP status of the hub's answer. None without an answer."""
    return getattr(getattr(_cause(error), "response", None), "status_code", None)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
