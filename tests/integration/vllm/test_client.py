"""Answers that no vLLM gives: something else listens, or its API has changed."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest

from resources.processes.unix_sockets import short_address
from resources.seams.serving import ServingError
from resources.vllm.client import VllmClient, VllmUnreachable
from tests.conftest import LONG_HOME
from tests.integration.serving.conftest import known_answer

Answering = Callable[[str], VllmClient]
ASKED = [{"role": "user", "content": "?"}]


class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One whose path is too long for the address of a socket."""
    long = tmp_path.joinpath("x" * LONG_HOME)
    long.mkdir()
    return long


@pytest.fixture
def answering(folder: Path) -> Iterator[Answering]:
    """Makes clients of a server that gives the same text to whatever it is asked."""
    said = ""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Length", str(len(said.encode())))
            self.end_headers()
            self.wfile.write(said.encode())

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    socket = folder / "vllm.sock"
    with short_address(socket) as address:
        server = Server(address, Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def client(text: str) -> VllmClient:
        nonlocal said
        said = text
        return VllmClient(socket, "key")

    yield client
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("text", "ask"),
    [
        ("<html>", lambda client: client.chat("support_bot", ASKED)),
        ("{}", lambda client: client.answer("support_bot", known_answer("v1"))),
        (json.dumps({"choices": [{}]}), lambda client: client.answer("support_bot", known_answer("v1"))),
    ],
)
def test_an_answer_of_another_form_is_vllms_error(
    answering: Answering, text: str, ask: Callable[[VllmClient], object]
) -> None:
    with answering(text) as client, pytest.raises(ServingError, match="in a form that is not known"):
        ask(client)


def test_a_server_that_is_not_there_is_named_by_its_socket(folder: Path) -> None:
    for socket in (folder / "none.sock", folder / "gone" / "none.sock"):
        with (
            pytest.raises(VllmUnreachable, match=f"vLLM at {socket} cannot be reached"),
            VllmClient(socket, "key") as client,
        ):
            client.chat("support_bot", ASKED)
