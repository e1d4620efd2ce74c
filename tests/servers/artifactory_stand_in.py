"""A STAND-IN for Artifactory, which cannot run here: the few calls that the store makes, as JFrog's docs say.

https://jfrog.com/help/r/jfrog-rest-apis: Deploy Artifact, Deploy Artifact by Checksum, Retrieve Artifact,
Delete Item, Copy Item, File List, Error Responses. As there, files are kept by checksum, paths point to them,
and a folder that has become empty stays. Set LLM_ASSETS_TEST_ARTIFACTORY to run the same tests against a real
one.
"""

import hashlib
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "token-of-the-tests"
READER = "token-that-may-only-read"
AGE_HEADER = "X-Stand-In-Age-S"
"""Not JFrog's: how old a deployed file is to look."""
BLOCK = 1024 * 1024


@dataclass(frozen=True)
class Entry:
    sha256: str
    sha1: str
    md5: str
    size: int
    modified: str


@dataclass
class Repository:
    """The files of one repository, by path; their bytes by checksum."""

    name: str
    blobs: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def artifactory_stand_in(folder: Path, *, repository: str) -> Iterator[str]:
    """Runs the stand-in with one empty repository; its address, up to and with `/artifactory`."""
    folder.mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.repository = Repository(name=repository, blobs=folder)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/artifactory"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Tests read no access log."""

    @property
    def repository(self) -> Repository:
        return self.server.repository  # type: ignore[attr-defined]

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # the client, or a proxy between, went away
            self.close_connection = True

    def do_GET(self) -> None:
        if self._entered():
            path, query = self._path_and_query()
            api, _, rest = path.partition("/api/storage/")
            self._storage(rest, query) if not api and rest else self._retrieve(path, body=True)

    def do_HEAD(self) -> None:
        if self._entered():
            self._retrieve(self._path_and_query()[0], body=False)

    def do_PUT(self) -> None:
        if not self._entered(writing=True):
            return
        name = self._in_repository(self._path_and_query()[0].removeprefix("/"))
        if self.headers.get("X-Checksum-Deploy") == "true":
            self._deploy_by_checksum(name)
        else:
            self._deploy(name)

    def do_DELETE(self) -> None:
        if not self._entered(writing=True):
            return
        with self.repository.lock:
            found = self.repository.entries.pop(
                self._in_repository(self._path_and_query()[0].removeprefix("/")), None
            )
        self._answer(204) if found else self._error(404, "Unable to find item")

    def do_POST(self) -> None:
        if not self._entered(writing=True):
            return
        path, query = self._path_and_query()
        source = self._in_repository(path.removeprefix("/api/copy/"))
        target = self._in_repository(query["to"][0].removeprefix("/"))
        with self.repository.lock:
            found = self.repository.entries.get(source)
            if found:
                self.repository.entries[target] = _now(found)
        told = {"messages": [{"level": "INFO", "message": f"copying {source} to {target} completed"}]}
        self._answer(200, told) if found else self._error(404, "Unable to find item")

    def _entered(self, *, writing: bool = False) -> bool:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in (TOKEN, READER):
            self._refuse(401, "Bad credentials")
        elif writing and token == READER:
            self._refuse(403, "Not enough permissions")
        return token == TOKEN or (token == READER and not writing)

    def _refuse(self, status: int, message: str) -> None:
        self.close_connection = True
        self._error(status, message)

    def _path_and_query(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return unquote(parts.path).removeprefix("/artifactory"), parse_qs(parts.query, keep_blank_values=True)

    def _in_repository(self, path: str) -> str:
        repository, _, name = path.partition("/")
        return name if repository == self.repository.name else f"//{repository}"

    def _storage(self, path: str, query: dict[str, list[str]]) -> None:
        if path == self.repository.name:
            return self._answer(200, {"repo": path, "path": "/"})
        folder = self._in_repository(path) + "/"
        with self.repository.lock:
            below = [
                (name, entry) for name, entry in self.repository.entries.items() if name.startswith(folder)
            ]
        if "list" not in query or not below:
            return self._error(404, "Unable to find item")
        files = [
            {
                "uri": name.removeprefix(folder.rstrip("/")),
                "size": str(entry.size),
                "lastModified": entry.modified,
                "folder": "false",
                "sha1": entry.sha1,
                "sha2": entry.sha256,
            }
            for name, entry in below
        ]
        return self._answer(200, {"uri": self.path, "created": _stamp(), "files": files})

    def _retrieve(self, path: str, *, body: bool) -> None:
        with self.repository.lock:
            found = self.repository.entries.get(self._in_repository(path.removeprefix("/")))
        if not found:
            return self._error(404, "File not found.")
        start, end, status, headers = 0, found.size, 200, {"X-Checksum-Sha256": found.sha256}
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end, status = int(first), min(int(last) + 1, found.size), 206
            if start >= found.size:
                return self._answer(416, headers={"Content-Range": f"bytes */{found.size}"})
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size}"
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(end - start)}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self._send_bytes(found, start, end)
        return None

    def _send_bytes(self, entry: Entry, start: int, end: int) -> None:
        with (self.repository.blobs / entry.sha256).open("rb") as stream:
            stream.seek(start)
            left = end - start
            while left:
                block = stream.read(min(BLOCK, left))
                self.wfile.write(block)
                left -= len(block)

    def _deploy_by_checksum(self, name: str) -> None:
        sha256 = self.headers["X-Checksum-Sha256"]
        with self.repository.lock:
            known = next(
                (entry for entry in self.repository.entries.values() if entry.sha256 == sha256), None
            )
            if known:
                self.repository.entries[name] = _now(known)
        self._answer(201, _told(known)) if known else self._error(
            404, "Checksum deploy failed. No existing file"
        )

    def _deploy(self, name: str) -> None:
        hashers = hashlib.sha256(), hashlib.sha1(), hashlib.md5()
        temporary, left = self.repository.blobs / uuid.uuid4().hex, int(self.headers["Content-Length"])
        size = left
        with temporary.open("wb") as stream:
            while left:
                block = self.rfile.read(min(BLOCK, left))
                if not block:
                    temporary.unlink()
                    self.close_connection = True
                    return
                for hasher in hashers:
                    hasher.update(block)
                stream.write(block)
                left -= len(block)
        sha256, sha1, md5 = (hasher.hexdigest() for hasher in hashers)
        temporary.rename(self.repository.blobs / sha256)
        modified = _stamp(age_s=float(self.headers.get(AGE_HEADER, 0)))
        entry = Entry(sha256=sha256, sha1=sha1, md5=md5, size=size, modified=modified)
        with self.repository.lock:
            self.repository.entries[name] = entry
        self._answer(201, _told(entry))

    def _answer(
        self, status: int, told: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        body = b"" if told is None else json.dumps(told).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, message: str) -> None:
        self._answer(status, {"errors": [{"status": status, "message": message}]})


def _told(entry: Entry) -> dict[str, Any]:
    return {
        "size": str(entry.size),
        "checksums": {"sha256": entry.sha256, "sha1": entry.sha1, "md5": entry.md5},
    }


def _now(entry: Entry) -> Entry:
    return Entry(sha256=entry.sha256, sha1=entry.sha1, md5=entry.md5, size=entry.size, modified=_stamp())


def _stamp(*, age_s: float = 0) -> str:
    return (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat(timespec="milliseconds")
