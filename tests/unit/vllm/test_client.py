"""Answers that no vLLM gives: something else is on the port, or its API has changed."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from resources.vllm.client import VllmClient
from resources.vllm.program import VllmError
from tests.unit.serving.conftest import known_answer

Answering = Callable[[str], VllmClient]
ASKED = [{"role": "user", "content": "?"}]


@pytest.fixture
def answering() -> Iterator[Answering]:
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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def client(text: str) -> VllmClient:
        nonlocal said
        said = text
        return VllmClient(f"http://127.0.0.1:{server.server_address[1]}", "key")

    yield client
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("text", "ask"),
    [
        ("<html>", lambda client: client.chat("support_bot", ASKED)),
        ("{}", lambda client: client.digest("support_bot")),
        ("{}", lambda client: client.answer("support_bot", known_answer("v1"))),
        (json.dumps({"choices": [{}]}), lambda client: client.answer("support_bot", known_answer("v1"))),
        ("data: {", lambda client: list(client.stream("support_bot", ASKED))),
        ('data: {"choices": [{}]}', lambda client: list(client.stream("support_bot", ASKED))),
        ("vllm:num_requests_running{} many", lambda client: client.in_flight()),
    ],
)
def test_an_answer_of_another_form_is_vllms_error(
    answering: Answering, text: str, ask: Callable[[VllmClient], object]
) -> None:
    with answering(text) as client, pytest.raises(VllmError, match="in a form that is not known"):
        ask(client)
