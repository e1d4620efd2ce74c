"""The filter follows its journals: at once, under load, torn, replaced, damaged; ten thousand tenants."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.gateway.conftest import prepared, started
from tests.integration.gateway.gateways import Gateway, backend, created, error_of, new_key, route, tenant


@pytest.fixture
def own(tmp_path: Path, backends: dict[str, int]) -> Iterator[Gateway]:
    """A gateway of this test alone."""
    with started(prepared(tmp_path / "home"), backends) as running:
        yield running


def revocation(key: str) -> dict[str, object]:
    return {"event": "revoked", "id": key.split("_")[1], "at": time.time(), "by": "tests"}


def test_a_key_counts_from_its_first_request_and_is_gone_with_its_revocation(gateway: Gateway) -> None:
    for _ in range(50):
        key = gateway.key()
        assert gateway.ask(key).status_code == 200
        gateway.append("keys", revocation(key))
        assert gateway.ask(key).status_code == 401


def test_a_revocation_holds_under_load(gateway: Gateway) -> None:
    key, stop, late = gateway.key(), threading.Event(), []
    revoked_at = threading.Event()

    def ask_on() -> None:
        with Gateway(gateway.home, gateway.port, gateway.backends) as client:
            while not stop.is_set():
                after = revoked_at.is_set()
                if client.ask(key).status_code == 200 and after:
                    late.append(time.time())

    threads = [threading.Thread(target=ask_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    gateway.append("keys", revocation(key))
    revoked_at.set()
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    assert late == []


def test_a_torn_line_waits_for_its_end(own: Gateway) -> None:
    key = new_key()
    line = json.dumps(created(key, "team-a")) + "\n"
    with (own.folder / "keys.jsonl").open("a") as file:
        for piece in (line[:20], line[20:-1]):
            file.write(piece)
            file.flush()
            assert own.ask(key).status_code == 401
        file.write(line[-1:])
    assert own.ask(key).status_code == 200


def test_a_torn_line_that_the_next_writer_cuts_off_never_counts(own: Gateway) -> None:
    torn, key = new_key(), own.key()
    assert own.ask(key).status_code == 200
    path = own.folder / "keys.jsonl"
    size = path.stat().st_size
    with path.open("a") as file:
        file.write(json.dumps(created(torn, "team-a"))[:-5])
    assert own.ask(key).status_code == 200
    os.truncate(path, size)
    other = own.key()
    assert [own.ask(each).status_code for each in (torn, key, other)] == [401, 200, 200]


def test_a_journal_that_was_replaced_is_read_anew(own: Gateway) -> None:
    kept, dropped = own.key(), own.key()
    assert [own.ask(each).status_code for each in (kept, dropped)] == [200, 200]
    path, draft = own.folder / "keys.jsonl", own.folder / "draft"
    draft.write_text(json.dumps(created(kept, "team-a")) + "\n" + "\n".join([]))
    draft.replace(path)
    assert [own.ask(each).status_code for each in (kept, dropped)] == [200, 401]
    path.unlink()
    assert own.ask(kept).status_code == 401


def _damage(line: str) -> Callable[[Path], None]:
    def append(path: Path) -> None:
        with path.open("a") as file:
            file.write(line + "\n")

    return append


@pytest.mark.parametrize("journal", ["keys", "tenants", "routes"])
@pytest.mark.parametrize("line", ['{"event":"revo', "[]", "{}", ""])
def test_with_a_damaged_line_nobody_is_let_through_until_it_is_repaired(
    own: Gateway, journal: str, line: str
) -> None:
    key, path = own.key(), own.folder / f"{journal}.jsonl"
    assert own.ask(key).status_code == 200
    whole = path.read_bytes()
    _damage(line)(path)
    for _ in range(2):
        assert error_of(own.ask(key)) == (500, "internal_error")
        assert own.client.get("/healthz").status_code == 500
    number = whole.count(b"\n") + 1
    assert f"{journal}.jsonl cannot be read in line {number}" in own.log()
    path.write_bytes(whole)
    assert own.ask(key).status_code == 200


def test_ten_thousand_tenants_with_two_keys_each_load_in_seconds(own: Gateway) -> None:
    names = [f"tenant-{number}" for number in range(10_000)]
    keys = [
        (new_key(f"{at}aaaaaa{number:05d}".translate(str.maketrans("0189", "wxyz"))), name)
        for number, name in enumerate(names)
        for at in "ab"
    ]
    own.append("tenants", *(tenant(name, {"support_bot": "limited"}) for name in names))
    own.append("routes", *(route(name, "support_bot", backend("d1")) for name in names))
    own.append("keys", *(created(key, name) for key, name in keys))
    start = time.monotonic()
    assert own.client.get("/healthz").status_code == 200
    assert time.monotonic() - start < 10
    start = time.monotonic()
    for _ in range(10):
        assert own.client.get("/healthz").status_code == 200
        time.sleep(0.06)
    pause_ms = (time.monotonic() - start) * 100 - 60
    assert pause_ms < 30, f"a health check takes {pause_ms:.0f} ms"
    key, name = keys[12_345]
    assert own.ask(key, path=f"/t/{name}/v1/chat/completions").status_code == 200
    assert own.ask(key, path="/t/tenant-1/v1/chat/completions").status_code == 401
