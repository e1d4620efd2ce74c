"""What malformed, oversized, slow and forged requests come to at a real Envoy."""

import re
import socket
import time
import uuid

import httpx
import pytest

from resources.gateway.envoy import EnvoyGateway
from resources.gateway.shards import CLUSTERS, HEADER, cluster_of
from tests.integration.door.conftest import QUICK
from tests.servers.echo import Echo

HEAD = b"Host: door\r\nx-deployment: d1\r\n"
LAST = b"Connection: close\r\n\r\n"


def send(gateway: EnvoyGateway, *parts: bytes, every_s: float = 0) -> str:
    """All that comes back for the bytes as they stand, until nothing more has come for a second."""
    answer = b""
    with socket.create_connection(("127.0.0.1", gateway.settings.port)) as connection:
        connection.settimeout(1.5)
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(every_s)
            while piece := connection.recv(65536):
                answer += piece
                if b"Connection: close" not in b"".join(parts) and answer.endswith(b"}\n"):
                    break
        except OSError:  # it was closed in our face, or said nothing more
            pass
    return answer.decode()


def status_of(answer: str) -> int:
    return int(answer.split(" ")[1])


SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HEAD + LAST

REFUSED = {
    "content-length and chunks": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two different content-lengths": b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "the same content-length twice": b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of content-lengths": b"Content-Length: 4, 4\r\n\r\nabcd",
    "a negative content-length": b"Content-Length: -1\r\n\r\n",
    "a signed content-length": b"Content-Length: +4\r\n\r\nabcd",
    "a blank before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "an unknown transfer-encoding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two transfer-encodings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a chunk that ends in a bare line feed": b"Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n",
    "a null byte in a header": b"X-A: a\0b\r\n\r\n",
    "an underscore in a header's name": b"x_deployment: d1\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("rest", REFUSED.values(), ids=REFUSED.keys())
def test_a_message_that_two_servers_could_read_differently_never_goes_on(
    gateway: EnvoyGateway, echo: Echo, rest: bytes
) -> None:
    before = len(echo.asked)
    answer = send(gateway, b"POST /v1/x HTTP/1.1\r\n" + HEAD + rest + SMUGGLED)
    assert status_of(answer) in (400, 501)
    assert answer.count("HTTP/1.1 ") == 1, "the connection ends with the refusal"
    assert len(echo.asked) == before
    assert '{"error":{"code":' in answer


@pytest.mark.parametrize(
    ("request_line_and_headers", "seen"),
    [
        (b"GET /v1/x HTTP/1.1\r\n" + HEAD + b"X-Folded: one\r\n  two\r\n", "one  two"),
        (b"GET /v1/x HTTP/1.1\n" + HEAD.replace(b"\r\n", b"\n") + b"X-Folded: one\n", "one"),
    ],
    ids=["folded", "bare line feeds"],
)
def test_old_spellings_of_a_message_go_on_as_one_plain_request(
    gateway: EnvoyGateway, echo: Echo, request_line_and_headers: bytes, seen: str
) -> None:
    before = len(echo.asked)
    assert status_of(send(gateway, request_line_and_headers + LAST)) == 200
    (asked,) = echo.asked[before:]
    assert asked["headers"]["x-folded"] == seen


@pytest.mark.parametrize("path", ["/a%2fb", "/a%2Fb", "/a%5cb", "/a%00b", "/a#b"])
def test_a_path_with_escaped_slashes_is_refused(gateway: EnvoyGateway, echo: Echo, path: str) -> None:
    before = len(echo.asked)
    assert status_of(send(gateway, f"GET {path} HTTP/1.1\r\n".encode() + HEAD + LAST)) == 400
    assert len(echo.asked) == before


@pytest.mark.parametrize(
    "path", ["/a/../t/b/v1", "/t//b/v1", "/t/b/./v1", "/%2e%2e/t/b/v1", "/../../t/b/v1", "/t\\b/v1"]
)
def test_a_path_has_one_spelling_for_the_filter_and_the_server(
    gateway: EnvoyGateway, echo: Echo, path: str
) -> None:
    send(gateway, f"GET {path} HTTP/1.1\r\n".encode() + HEAD + LAST)
    assert echo.asked[-1]["path"] == "/t/b/v1"


def test_headers_have_a_size_and_a_number(client: httpx.Client, echo: Echo) -> None:
    before = len(echo.asked)
    many = {f"x-{number}": "1" for number in range(100)}
    for headers in ({"x-large": "a" * 40_000}, many):
        answer = client.get("/v1/x", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (431, "headers_too_large")
    assert len(echo.asked) == before


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_limit_is_refused_and_one_within_it_goes_on(
    client: httpx.Client, echo: Echo, chunked: bool
) -> None:
    limit = QUICK["max_body_bytes"]
    for size, status in ((limit - 1024, 200), (4 * limit, 413)):
        body = b"a" * size
        answer = client.post("/v1/x", content=iter([body]) if chunked else body)
        assert answer.status_code == status
    assert answer.json()["error"]["code"] == "request_too_large"
    assert echo.asked[-1]["body_bytes"] == (0 if chunked else limit - 1024)  # the echo reads no chunks


def test_a_client_that_sends_its_headers_or_its_body_by_drops_is_cut_off(
    gateway: EnvoyGateway, echo: Echo
) -> None:
    before = len(echo.asked)
    started = time.monotonic()
    headers = send(gateway, b"GET /v1/x HT", *[b"T"] * 8, every_s=0.1)
    body = send(
        gateway, b"POST /v1/x HTTP/1.1\r\n" + HEAD + b"Content-Length: 99\r\n\r\n", *[b"a"] * 15, every_s=0.1
    )
    assert (status_of(headers), status_of(body)) == (408, 408)
    assert "request_timeout" in body
    assert time.monotonic() - started < 6
    assert len(echo.asked) == before


def test_the_request_id_is_envoys_own_and_on_every_answer(client: httpx.Client, echo: Echo) -> None:
    """Of answers by a deployment, by the filter and by Envoy itself."""
    forged = {"x-request-id": "mine", "x-envoy-internal": "true", "x-forwarded-for": "10.0.0.1"}
    seen = set()
    for path, headers in (("/v1/x", {}), ("/configured", {}), ("/v1/x", {"x-deployment": "nobody"})):
        answer = client.get(path, headers={**forged, **headers})
        seen.add(uuid.UUID(answer.headers["x-request-id"]))
    assert len(seen) == 3
    asked = echo.asked[-1]["headers"]
    assert uuid.UUID(asked["x-request-id"]) in seen
    assert not [name for name in asked if re.match("x-(envoy|forwarded)", name)]


def test_which_cluster_answers_is_the_filters_choice_alone(client: httpx.Client, echo: Echo) -> None:
    for cluster in (*CLUSTERS[:3], "admin"):
        assert client.get("/v1/x", headers={HEADER: cluster}).status_code == 200
        assert HEADER not in echo.asked[-1]["headers"]
        refused = client.get("/v1/x", headers={HEADER: cluster, "x-deployment": "nobody"})
        assert refused.status_code == 503


def test_where_the_filter_fails_nothing_is_let_through(client: httpx.Client, echo: Echo) -> None:
    """Least of all to Envoy's own admin interface, which is a cluster too."""
    before = len(echo.asked)
    for cluster in (cluster_of("d1"), "admin"):
        assert client.get("/broken", headers={HEADER: cluster}).status_code == 503
    assert len(echo.asked) == before


def test_no_answer_says_what_server_it_is(client: httpx.Client) -> None:
    for headers in ({}, {"x-deployment": "nobody"}):
        answer = client.get("/v1/x", headers=headers)
        assert not {"server", "x-envoy-upstream-service-time", "via"} & set(answer.headers)


def test_http_1_0_is_refused(gateway: EnvoyGateway) -> None:
    assert status_of(send(gateway, b"GET /v1/x HTTP/1.0\r\n" + HEAD + b"\r\n")) == 426


def test_a_connection_beyond_the_limit_is_not_taken_and_the_others_go_on(gateway: EnvoyGateway) -> None:
    asking = b"GET /v1/x HTTP/1.1\r\n" + HEAD + b"\r\n"
    time.sleep(1.2)  # what earlier tests left closing counts until it is closed
    held = [socket.create_connection(("127.0.0.1", gateway.settings.port)) for _ in range(80)]
    try:
        answered = [_answers(each, asking) for each in held]
    finally:
        for each in held:
            each.close()
    assert answered[0]
    assert not answered[-1]
    assert QUICK["max_connections"] - 10 <= answered.count(True) <= QUICK["max_connections"]


def _answers(connection: socket.socket, asking: bytes) -> bool:
    connection.settimeout(2)
    try:
        connection.sendall(asking)
        return connection.recv(100).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
