"""Redirects, proxies, and servers that take their time: what the connections do besides sending bytes."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from urllib3.exceptions import HTTPError

from resources.object_stores.connections import MOST_REDIRECTS, Connections
from resources.object_stores.objects import ObjectStoreError
from resources.object_stores.opening import open_object_store
from resources.object_stores.retries import Retries
from resources.object_stores.sending import Sending

AUTHORIZATION = {"Authorization": "Bearer a-secret", "Range": "bytes=0-9"}
Answer = Callable[[str], tuple[int, dict[str, str]]]


@contextmanager
def server(answer: Answer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Answers each target as told, with no body; its address and the requests it got."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append({"target": self.path, **self.headers})
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers = answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        do_PUT = do_GET

        def log_message(self, *_: Any) -> None:
            """What was asked is kept instead."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}", asked
        finally:
            running.shutdown()


@pytest.fixture
def connections(retries: Retries) -> Iterator[Connections]:
    made = Connections(retries, kept=4)
    yield made
    made.close()


def test_a_download_goes_where_it_is_sent_and_takes_the_token_to_no_other_host(
    connections: Connections,
) -> None:
    with server(lambda _: (200, {})) as (bucket, bucket_asked):

        def answer(target: str) -> tuple[int, dict[str, str]]:
            to = {"/a": "/b?x=1", "/b?x=1": f"{bucket}/signed?signature=1"}[target]
            return 302, {"Location": to}

        with server(answer) as (store, store_asked):
            assert connections.ask("GET", f"{store}/a", headers=AUTHORIZATION).status == 200
    assert [asked["Authorization"] for asked in store_asked] == ["Bearer a-secret"] * 2
    (signed,) = bucket_asked
    assert signed["target"] == "/signed?signature=1"
    assert signed["Range"] == "bytes=0-9"
    assert "Authorization" not in signed


def test_what_is_sent_is_not_redirected(connections: Connections) -> None:
    with server(lambda _: (308, {"Location": "/b"})) as (store, asked):
        assert connections.ask("PUT", f"{store}/a", headers={}, body=b"1").status == 308
    assert len(asked) == 1


def test_a_circle_of_redirects_ends_in_an_error_without_their_address(connections: Connections) -> None:
    with (
        server(lambda _: (302, {"Location": "/a?signature=1"})) as (store, asked),
        pytest.raises(HTTPError, match=f"redirected {MOST_REDIRECTS} times") as raised,
    ):
        connections.ask("GET", f"{store}/a", headers={})
    assert len(asked) == MOST_REDIRECTS
    assert "signature" not in str(raised.value)


def test_the_environment_s_proxy_is_asked_except_for_the_hosts_that_need_none(
    connections: Connections, retries: Retries, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with server(lambda _: (200, {})) as (proxy, asked):
        monkeypatch.setenv("http_proxy", proxy.replace("//", "//me:a%40b@"))
        connections.ask("GET", "http://far.example:8081/a?b=1", headers={})
        assert asked[-1]["target"] == "http://far.example:8081/a?b=1"
        assert asked[-1]["Host"] == "far.example:8081"
        assert asked[-1]["proxy-authorization"] == "Basic bWU6YUBi"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with server(lambda _: (200, {})) as (near, near_asked):
            other = Connections(retries, kept=1)
            other.ask("GET", f"{near}/a", headers={})
            other.close()
        assert [each["target"] for each in near_asked] == ["/a"]
    assert len(asked) == 1


def test_an_upload_waits_longer_for_a_server_that_stores_than_for_one_that_is_not_there(
    make_file: Callable[[int], Path],
) -> None:
    """It stops reading for longer than a connection may take; it has not fallen silent yet."""
    retries = Retries(connect_s=0.3, silence_s=10, give_up_s=0.1, first_pause_s=0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)

        def slow() -> None:
            connection = listener.accept()[0]
            with connection, connection.makefile("rb") as stream:
                while stream.readline().strip():
                    continue
                threading.Event().wait(1)
                stream.read(16 * 1024 * 1024)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        threading.Thread(target=slow, daemon=True).start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/artifactory/repository"
        store = open_object_store(f"artifactory+{address}", retries=retries)
        sent = store.upload(make_file(16 * 1024 * 1024), "a", lambda _: None)
    assert sent.size_bytes == 16 * 1024 * 1024


def test_a_file_that_cannot_be_read_is_no_broken_connection(
    connections: Connections, retries: Retries, make_file: Callable[[int], Path]
) -> None:
    source = make_file(9)
    sending = Sending(source, lambda _: None, retries)
    source.unlink()
    with (
        server(lambda _: (200, {})) as (store, _),
        pytest.raises(ObjectStoreError, match=f"{source} could not be read: .*No such file"),
    ):
        connections.ask("PUT", f"{store}/a", headers={"Content-Length": "9"}, body=sending.blocks())
