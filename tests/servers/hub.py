"""A stand-in for a hub of models."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from tests.unit.base_models.conftest import COMMIT, REPOSITORY, model_files, sha256


class Hub:
    """What huggingface_hub needs of a hub: a repository's listing, and its files in parts."""

    def __init__(self) -> None:
        self.files = model_files()
        self.listed: list[str] | None = None  # else all files; none: the answer of some other server
        self.token: str | None = None
        self.cut_after: int | None = None  # bytes of a body before the line drops, once
        self.lie = False  # sends other bytes of the same length
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, range
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def downloads(self, name: str) -> list[str | None]:
        """The ranges that were asked of a file."""
        return [part for method, path, part in self.requests if method == "GET" and path.endswith(f"/{name}")]

    def _handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.requests.append((self.command, path, self.headers.get("Range")))
                if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    self._refuse(401, "GatedRepo", f"no access with {self.headers.get('Authorization')}")
                elif path == f"/api/models/{REPOSITORY}/revision/{COMMIT}":
                    listing = "<html>" if hub.listed == [] else json.dumps(self._listing())
                    self._send(listing.encode(), body=body, kind="application/json")
                elif path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/"):
                    self._send_file(path.rsplit("/", 1)[1], body=body)
                elif path.startswith(f"/api/models/{REPOSITORY}/"):
                    self._refuse(404, "RevisionNotFound", "Invalid rev id")
                else:
                    self._refuse(404, "RepoNotFound", "Repository not found")

            def _listing(self) -> dict[str, object]:
                siblings = [
                    {"rfilename": name, "size": len(content), "lfs": self._large_file(content)}
                    for name, content in self._listed_files().items()
                ]
                return {"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "siblings": siblings}

            def _listed_files(self) -> dict[str, bytes]:
                names = hub.files if hub.listed is None else hub.listed
                return {name: hub.files.get(name, b"") for name in names}

            def _large_file(self, content: bytes) -> dict[str, object]:
                return {"sha256": sha256(content), "size": len(content), "pointerSize": 130}

            def _send_file(self, name: str, *, body: bool) -> None:
                content = hub.files.get(name)
                if content is None:
                    self._refuse(404, "EntryNotFound", "Entry not found")
                    return
                etag = sha256(content)
                start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
                if hub.lie and name.endswith(".safetensors"):
                    content = content[:-1] + b"!"
                self._send(content[start:], body=body, start=start, total=len(content), etag=etag)

            def _send(
                self,
                data: bytes,
                *,
                body: bool,
                kind: str = "application/octet-stream",
                start: int = 0,
                **file: object,
            ) -> None:
                self.send_response(206 if start else 200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                if file:
                    self.send_header("ETag", f'"{file["etag"]}"')
                    self.send_header("X-Repo-Commit", COMMIT)
                    self.send_header("Accept-Ranges", "bytes")
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{file['total']}/{file['total']}")
                self.end_headers()
                if not body:
                    return
                if hub.cut_after is not None and len(data) > hub.cut_after:
                    self.wfile.write(data[: hub.cut_after])
                    self.wfile.flush()
                    hub.cut_after = None
                    self.close_connection = True
                    self.connection.shutdown(2)
                    return
                self.wfile.write(data)

            def _refuse(self, status: int, code: str, message: str) -> None:
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.send_header("X-Error-Message", message)
                self.send_header("Content-Length", "0")
                self.end_headers()

        return Handler
