"""A real local HTTP server with the file protocol of huggingface.co.

    with serving({"owner/name": {"main": {"config.json": b"{}", "model.safetensors": data}}}) as endpoint:
        with hub_at(endpoint, tmp_path):
            fetch("hf://owner/name")

As on huggingface.co, files of weights are stored on another server (a redirect; their ETag is a SHA-256).
Other files are in the repository; their ETag is the SHA-1 of a git blob. A commit is a hash of its contents.
"""

import contextlib
import functools
import hashlib
import importlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

Files = Mapping[str, bytes]
HELD_ELSEWHERE = (".safetensors", ".bin", ".pth", ".pt", ".th", ".ckpt", ".tar")
# Possible faults of a file, a repository or a path: a status such as "500", or one of these.
GATED = "gated"  # the owner has to grant access to each reader
CLOSED = "closed"  # the connection ends without an answer
SHORT = "short"  # the answer is complete, but the file has lost its second half
CUT = "cut"  # the connection ends after half of the file; a request for the rest gets nothing
CUT_ONCE = "cut once"  # like CUT, but only the first time
WRONG = "wrong"  # the same number of bytes with other values


@functools.cache
def etag_of(name: str, content: bytes) -> str:
    if name.endswith(HELD_ELSEWHERE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def commit_of(files: Files) -> str:
    """Commit of a revision that contains `files`."""
    held = sorted((name, etag_of(name, content)) for name, content in files.items())
    return hashlib.sha1(repr(held).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # `serving` sets these for each server.
    repositories: Mapping[str, Mapping[str, Files]]
    elsewhere: dict[str, bytes]
    faults: dict[str, str]
    seen: list[str]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.seen.append(f"{self.command} {path}")
        if path in self.faults:
            self.failed(int(self.faults[path]))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", path):
            self.described(found[1], unquote(found[2]))
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolved(found[1], unquote(found[2]), unquote(found[3]))
        elif (name := unquote(path).removeprefix("/")) in self.elsewhere:
            self.content(name, self.elsewhere[name], {})
        else:
            self.failed(404)

    def files(self, repository: str, revision: str) -> Files | None:
        """Files of a revision, by name or commit; None if an error was sent."""
        fault = self.faults.get(repository)
        if fault == CLOSED:
            self.close_connection = True
        elif fault == GATED:
            self.failed(403, "GatedRepo", f"Access to model {repository} is restricted")
        elif fault:
            self.failed(int(fault))
        elif repository not in self.repositories:
            self.failed(401, "RepoNotFound", "Invalid username or password.")
        else:
            revisions = self.repositories[repository]
            commits = {commit_of(files): files for files in revisions.values()}
            found = revisions.get(revision, commits.get(revision))
            if found is not None:
                return found
            self.failed(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def described(self, repository: str, revision: str) -> None:
        files = self.files(repository, revision)
        if files is not None:
            siblings = [{"rfilename": name} for name in sorted(files)]
            about = {"id": repository, "sha": commit_of(files), "siblings": siblings}
            self.answer(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def resolved(self, repository: str, revision: str, name: str) -> None:
        files = self.files(repository, revision)
        if files is None:
            return
        commit = {"X-Repo-Commit": commit_of(files)}
        if name not in files:
            self.failed(404, "EntryNotFound", "Entry not found", **commit)
        elif name.endswith(HELD_ELSEWHERE):
            etag = etag_of(name, files[name])
            path = f"elsewhere/{repository}/{etag}/{name}"
            self.elsewhere[path] = files[name]
            port = self.server.server_address[1]  # for the client, localhost is another server
            location = f"http://localhost:{port}/{path}"
            linked = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(files[name]))}
            self.answer(302, b"", commit | linked | {"Location": location})
        else:
            self.content(name, files[name], commit | {"ETag": f'"{etag_of(name, files[name])}"'})

    def content(self, name: str, content: bytes, headers: dict[str, str]) -> None:
        """Sends a file or the requested part of it, with its fault."""
        fault = self.faults.get(Path(name).name, "") if self.command == "GET" else ""
        if fault.isdigit():
            return self.failed(int(fault))
        if fault == CLOSED:
            self.close_connection = True
            return None
        if fault == CUT_ONCE:
            self.faults.pop(Path(name).name)
        if fault == SHORT:
            content = content[: len(content) // 2]
        if fault == WRONG:
            content = bytes(255 - byte for byte in content)
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if begin:
            headers = headers | {"Content-Range": f"bytes {begin[1]}-{len(content) - 1}/{len(content)}"}
            cut = 0 if fault == CUT else None
            return self.answer(206, content[int(begin[1]) :], headers, cut)
        return self.answer(200, content, headers, len(content) // 2 if fault in (CUT, CUT_ONCE) else None)

    def failed(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        why = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
        self.answer(status, b"", headers | why)

    def answer(self, status: int, body: bytes, headers: Mapping[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True


@contextlib.contextmanager
def serving(
    repositories: Mapping[str, Mapping[str, Files]],
    faults: dict[str, str] | None = None,
    others: Files | None = None,
    seen: list[str] | None = None,
) -> Iterator[str]:
    """Context in which the server runs; yields its address.

    Args:
      repositories: Repository -> revision -> file -> content. It may change during the context.
      faults: File or repository -> fault (one of this module's constants); or path -> status. It may change
        too.
      others: Path -> content, for files outside repositories.
      seen: List to which requests are appended, such as "GET /api/models/owner/name".
    """
    of_this = {
        "repositories": repositories,
        "faults": {} if faults is None else faults,
        "elsewhere": {} if others is None else dict(others),
        "seen": [] if seen is None else seen,
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), of_this))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def hub_at(endpoint: str, home: Path, **environment: str) -> Iterator[Path]:
    """Context in which huggingface_hub uses the server at `endpoint` and a cache in `home`; yields the cache.

    The library reads its environment at its import, so its constants are reloaded.
    """
    import huggingface_hub

    def read_again() -> None:
        huggingface_hub.close_session()
        importlib.reload(huggingface_hub.constants)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"):
            patch.delenv(name, raising=False)
        settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost"}
        for name, value in {**settings, **environment}.items():
            patch.setenv(name, value)
        read_again()
        yield home / "hub"
    read_again()


def kept(cache: Path) -> list[bytes]:
    """Contents of the cache. Checks that no file is incomplete and no link is broken."""
    assert not list(cache.rglob("*.incomplete"))
    assert [path for path in cache.rglob("*") if path.is_symlink() and not path.exists()] == []
    return [path.read_bytes() for path in cache.rglob("blobs/*")]
