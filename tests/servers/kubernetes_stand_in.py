"""A stand-in for a Kubernetes API server: it keeps what is applied, and forgets what is deleted.

It runs nothing: a test changes `objects` as a controller would. `make test-cluster` shows what it cannot.
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from resources.kubernetes.cluster import PATHS, Cluster

TOKEN = "cluster-t0ken"
FOLDERS = {path.rpartition("/")[2] for path in PATHS.values()}


class KubernetesStandIn(ThreadingHTTPServer):
    """`objects` by path, such as `/api/v1/namespaces/team-a/pods/one`; `asked` has each verb and address.

    A path in `refused` is answered with that status and message.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, Any] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        self.asked: list[str] = []

    def answer(self, verb: str, address: str, body: bytes) -> tuple[int, Any]:
        self.asked.append(f"{verb} {address}")
        path, query = urlsplit(address).path, parse_qs(urlsplit(address).query)
        if path in self.refused:
            status, message = self.refused[path]
            return status, {"kind": "Status", "message": message}
        if verb == "PATCH":
            self.objects[path] = _with_status(json.loads(body), self.objects.get(path))
            return 200, self.objects[path]
        if path in self.objects:
            return 200, self.objects.pop(path) if verb == "DELETE" else self.objects[path]
        if path.rpartition("/")[2] in FOLDERS:
            return 200, {
                "items": [each for at, each in self.objects.items() if _listed(at, path, each, query)]
            }
        return 404, {"kind": "Status", "message": f"{path} not found"}


def _with_status(applied: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    kept = {"status": before["status"]} if before and "status" in before else {}
    applied["metadata"]["uid"] = "uid-1"
    if "stringData" in applied:
        secret = applied.pop("stringData")
        applied["data"] = {key: base64.b64encode(value.encode()).decode() for key, value in secret.items()}
    return {**applied, **kept}


def _listed(at: str, folder: str, found: dict[str, Any], query: dict[str, list[str]]) -> bool:
    parent = at.rpartition("/")[0]
    everywhere = "/namespaces/" not in folder and parent.rpartition("/")[2] == folder.rpartition("/")[2]
    if parent != folder and not everywhere:
        return False
    wanted = [pair.split("=") for text in query.get("labelSelector", ()) for pair in text.split(",")]
    return all(found["metadata"].get("labels", {}).get(name) == value for name, value in wanted)


class _Handler(BaseHTTPRequestHandler):
    server: KubernetesStandIn

    def _any(self) -> None:
        assert self.headers["Authorization"] == f"Bearer {TOKEN}"
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, content = self.server.answer(self.command, self.path, body)
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PATCH = do_DELETE = _any

    def log_message(self, *_: Any) -> None:
        """Nothing on the test's output."""


@contextmanager
def kubernetes_stand_in(folder: Path) -> Iterator[tuple[KubernetesStandIn, Cluster]]:
    """The server, and how to reach it."""
    with KubernetesStandIn() as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
        }
        (folder / "kubeconfig").write_text(json.dumps(config))
        try:
            yield server, Cluster(kubeconfig=str(folder / "kubeconfig"))
        finally:
            server.shutdown()
            serving.join()
