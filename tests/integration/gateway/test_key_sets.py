"""Key sets of issuers: what is taken of them, and what an issuer that lies or is slow comes to."""

import contextlib
import json
import socket
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from resources.gateway import key_set_refresh, key_sets
from resources.gateway.errors import GatewayError
from resources.gateway.jwt_filter import Issuer
from resources.gateway.key_set_refresh import REFRESH_S, RETRY_S, KeySetRefresh
from resources.gateway.key_sets import MOST_BYTES, cleaned_key_set, fetch_key_set
from resources.waiting import wait_until
from tests.servers import oidc_issuer
from tests.servers.oidc_issuer import DISCOVERY, KEYS, issuing
from tests.servers.ports import free_port


@pytest.fixture
def server() -> Iterator[oidc_issuer.Issuer]:
    with issuing() as server:
        yield server


def known_as(server: oidc_issuer.Issuer, key_source: str | None = None) -> Issuer:
    return Issuer(name=server.name, audiences=("team-a",), key_source=key_source)


def cleaned(*keys: Any) -> list[dict[str, Any]]:
    return cleaned_key_set(json.dumps({"keys": keys}).encode(), of="https://idp.example.com")["keys"]


RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
SHORT = {
    **RSA.as_dict(private=False),
    "n": urlsafe_b64encode(b"\xc1" * 128).decode().rstrip("="),
}  # 1024 bits
LONG = {**RSA.as_dict(private=False), "n": urlsafe_b64encode(b"\xc1" * 1025).decode().rstrip("=")}


def test_public_keys_that_sign_are_taken_field_by_field() -> None:
    curve = ECKey.generate_key("P-384", {"kid": "ec", "use": "sig", "alg": "ES384"})
    told = {**RSA.as_dict(private=True), "x5u": "https://elsewhere.example.com", "ext": True}
    taken = cleaned(told, curve.as_dict(private=False))
    assert taken == [RSA.as_dict(private=False), curve.as_dict(private=False)]
    assert set(taken[0]) == {"kty", "kid", "n", "e"}


@pytest.mark.parametrize(
    "other",
    [
        OctKey.generate_key(256, {"kid": "oct"}).as_dict(private=True),
        {**OctKey.generate_key(256).as_dict(private=True), "kty": "OCT"},
        OKPKey.generate_key("Ed25519").as_dict(private=False),
        SHORT,
        LONG,
        ECKey.generate_key("secp256k1").as_dict(private=False),
        {**RSA.as_dict(private=False), "use": "enc"},
        {**RSA.as_dict(private=False), "alg": "HS256"},
        {**RSA.as_dict(private=False), "alg": "none"},
        {**RSA.as_dict(private=False), "alg": ["RS256"]},
        {**RSA.as_dict(private=False), "n": "!"},
        {**RSA.as_dict(private=False), "e": None},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": ["RSA"]},
        {},
        "RSA",
        None,
    ],
)  # fmt: skip
def test_a_key_of_another_kind_never_counts(other: Any) -> None:
    assert cleaned(other, RSA.as_dict(private=False)) == [RSA.as_dict(private=False)]
    with pytest.raises(
        GatewayError, match=r"None of the 1 keys of the issuer https://idp\.example\.com can prove"
    ):
        cleaned(other)


def test_the_keys_are_found_by_discovery(server: oidc_issuer.Issuer) -> None:
    assert fetch_key_set(known_as(server)) == {"keys": [server.key.as_dict(private=False)]}
    assert server.asked == [DISCOVERY, KEYS]


def test_the_keys_are_taken_from_the_address_or_file_that_is_named(
    server: oidc_issuer.Issuer, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(server.answers[KEYS]))
    expected = {"keys": [server.key.as_dict(private=False)]}
    assert fetch_key_set(known_as(server, f"{server.name}{KEYS}")) == expected
    assert fetch_key_set(known_as(server, f"file:{file}")) == expected
    assert server.asked == [KEYS]


def test_a_discovery_that_speaks_for_another_issuer_is_refused(server: oidc_issuer.Issuer) -> None:
    server.answers[DISCOVERY]["issuer"] = "https://other.example.com"
    with pytest.raises(GatewayError, match=r"speaks for the issuer 'https://other\.example\.com'.*exactly"):
        fetch_key_set(known_as(server))


@pytest.mark.parametrize(
    "address", ["http://192.0.2.1/keys", "file:///etc/passwd", "ftp://a", None, 7, "https://"]
)
def test_a_discovery_that_leads_to_another_kind_of_place_is_refused(
    server: oidc_issuer.Issuer, address: Any
) -> None:
    server.answers[DISCOVERY]["jwks_uri"] = address
    with pytest.raises(GatewayError, match="as the place of its keys"):
        fetch_key_set(known_as(server))


def test_a_redirect_on_this_machine_is_followed_and_one_to_plain_http_elsewhere_is_not(
    server: oidc_issuer.Issuer,
) -> None:
    server.answers["/moved"] = (302, {"location": KEYS}, b"")
    assert fetch_key_set(known_as(server, f"{server.name}/moved"))["keys"]
    server.answers["/moved"] = (302, {"location": "http://192.0.2.1/keys"}, b"")
    with pytest.raises(GatewayError, match=r"leads on to 'http://192\.0\.2\.1/keys' \(not https\)"):
        fetch_key_set(known_as(server, f"{server.name}/moved"))
    server.answers["/moved"] = (302, {"location": "/moved"}, b"")
    with pytest.raises(GatewayError, match="redirects more than 3 times"):
        fetch_key_set(known_as(server, f"{server.name}/moved"))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((500, {}, b""), "answers 500"),
        ((200, {}, b"<html>"), "no JSON"),
        ((200, {}, b"[" * 100_000), "no JSON"),
        ((200, {}, b"[]"), "no JSON object"),
        ((200, {}, b"{}"), "no list `keys`"),
        ((200, {}, b"x" * (MOST_BYTES + 1)), "holds more than 262,144 bytes"),
        ((200, {"content-length": "1000"}, b"{"), "does not answer at"),
        ((200, {"content-encoding": "gzip"}, b"\x1f\x8b"), "no JSON"),
    ],
)
def test_an_answer_that_is_no_key_set_is_told(server: oidc_issuer.Issuer, answer: Any, told: str) -> None:
    server.answers[KEYS] = answer
    with pytest.raises(GatewayError, match=told):
        fetch_key_set(known_as(server))


def _trickle(listening: socket.socket) -> None:
    """Answers one request with a byte every few milliseconds, until nobody listens any more."""
    connection, _ = listening.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b" ")
                time.sleep(0.02)


def test_an_issuer_that_never_ends_its_answer_takes_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_sets, "FETCH_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = threading.Thread(target=_trickle, args=(listening,))
        server.start()
        started = time.monotonic()
        with pytest.raises(GatewayError, match="takes longer than 2 s to answer"):
            fetch_key_set(Issuer(name=address, audiences=("a",), key_source=f"{address}/keys"))
        assert time.monotonic() - started < 10
        server.join(timeout=10)
        assert not server.is_alive()


def test_an_issuer_that_does_not_answer_is_told(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(GatewayError, match=f"The issuer {address} does not answer at {address}/.well-known"):
        fetch_key_set(Issuer(name=address, audiences=("a",)))
    with pytest.raises(GatewayError, match=r"none\.json of the issuer .* cannot be read: No such file"):
        fetch_key_set(Issuer(name=address, audiences=("a",), key_source=f"file:{tmp_path / 'none.json'}"))


def test_the_last_good_keys_go_on_while_the_issuer_does_not_answer(server: oidc_issuer.Issuer) -> None:
    said: list[str] = []
    refresh, issuer = KeySetRefresh(log=said.append), known_as(server)
    refresh.look([issuer], now=0)
    good = refresh.key_sets[issuer.provider]
    server.answers[KEYS] = (503, {}, b"")
    for now in (REFRESH_S, REFRESH_S + RETRY_S, REFRESH_S + 2 * RETRY_S):
        refresh.look([issuer], now=now)
    assert refresh.key_sets == {issuer.provider: good}
    (told,) = said
    assert told.endswith("answers 503, not a set of keys. The last keys that it told go on.")
    rotated = RSAKey.generate_key(2048, {"kid": "second"})
    server.publish(rotated)
    refresh.look([issuer], now=REFRESH_S + 3 * RETRY_S)
    assert refresh.key_sets[issuer.provider] == {"keys": [rotated.as_dict(private=False)]}
    assert said[1:] == [f"The keys of the issuer {server.name} can be had again."]


def test_an_issuer_is_asked_when_it_is_new_and_when_it_is_due_and_not_between(
    server: oidc_issuer.Issuer,
) -> None:
    refresh, issuer = KeySetRefresh(log=print), known_as(server)
    for now in (0, 1, REFRESH_S - 1):
        refresh.look([issuer], now=now)
    assert server.asked.count(KEYS) == 1
    refresh.look([issuer], now=REFRESH_S)
    assert server.asked.count(KEYS) == 2


def test_the_keys_of_an_issuer_that_is_gone_are_forgotten(server: oidc_issuer.Issuer) -> None:
    refresh = KeySetRefresh(log=print)
    refresh.look([known_as(server)], now=0)
    refresh.look([], now=1)
    assert refresh.key_sets == {}


def test_an_issuer_that_says_nothing_keeps_no_other_waiting(
    server: oidc_issuer.Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_set_refresh, "WAIT_S", 0.1)
    said: list[str] = []
    refresh, quick = KeySetRefresh(log=said.append), known_as(server)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slow = Issuer(name=f"http://127.0.0.1:{silent.getsockname()[1]}", audiences=("a",))

        def known() -> bool:
            refresh.look([slow, quick], now=0)
            return quick.provider in refresh.key_sets

        wait_until(known, what="the keys of the one that answers", timeout_s=20)
        assert said == [], "the other is still asked"
    refresh.close()
