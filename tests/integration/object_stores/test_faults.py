"""Stores behind a network that fails: real sockets, real servers, a proxy between that breaks connections."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resources.object_stores.objects import ObjectStoreError
from resources.object_stores.opening import open_object_store
from resources.object_stores.retries import Retries
from tests.integration.object_stores.conftest import SERVED, Server, Servers
from tests.servers.fault_proxy import FAULTS, Fault, FaultProxy, fault_proxy
from tests.servers.ports import free_port

SIZE = 9 * 1024 * 1024
"""Of a file in several parts on S3 and in a resumable upload on Google Cloud Storage."""
TIMES: dict[Fault, int] = {"503": 2, "reset": 2, "truncate": 2, "trickle": 1, "hang": 1, "deaf": 1}
"""Broken connections before good ones; each trickle and each silence takes seconds to be noticed."""
FOR_EVER = 10**9
SHORT = Retries(connect_s=1, silence_s=0.3, slowest_bytes_per_s=2**25, give_up_s=0.7, first_pause_s=0.05)


@pytest.fixture(params=SERVED)
def server(request: pytest.FixtureRequest, servers: Servers) -> Server:
    return servers(request.param)


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with fault_proxy(server.address) as running:
        yield running


@pytest.fixture
def through(server: Server, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store whose server is reached through the proxy."""
    return server.enter(monkeypatch, proxy.address)


def nothing(_: int) -> None:
    """For transfers whose progress nobody watches."""


@pytest.mark.parametrize("fault", FAULTS)
def test_an_upload_gets_over_broken_connections(
    through: str, proxy: FaultProxy, fault: Fault, make_file: Callable[[int], Path], retries: Retries
) -> None:
    source, moved = make_file(SIZE), [0]
    content = source.read_bytes()
    proxy.fault, proxy.times = fault, TIMES[fault]
    store = open_object_store(through, retries=retries)
    sent = store.upload(source, "a/file", lambda size: moved.append(size))
    assert proxy.failed == TIMES[fault]
    assert sent.sha256 == hashlib.sha256(content).hexdigest()
    assert sum(moved) == SIZE
    assert store.read("a/file") == content


@pytest.mark.parametrize("fault", FAULTS)
def test_a_download_gets_over_broken_connections(
    through: str,
    proxy: FaultProxy,
    fault: Fault,
    make_file: Callable[[int], Path],
    retries: Retries,
    tmp_path: Path,
) -> None:
    store, moved = open_object_store(through, retries=retries), [0]
    sent = store.upload(make_file(SIZE), "a/file", nothing)
    del store  # and its good connections
    proxy.fault, proxy.times = fault, TIMES[fault]
    store = open_object_store(through, retries=retries)
    assert store.download("a/file", tmp_path / "target", lambda size: moved.append(size)) == sent
    assert proxy.failed == TIMES[fault]
    assert sum(moved) == SIZE
    assert hashlib.sha256((tmp_path / "target").read_bytes()).hexdigest() == sent.sha256


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_stays_broken_gives_one_clear_error_in_time(
    through: str, proxy: FaultProxy, fault: Fault, make_file: Callable[[int], Path], tmp_path: Path
) -> None:
    open_object_store(through).upload(make_file(SIZE), "a/file", nothing)
    proxy.fault, proxy.times = fault, FOR_EVER
    store, started = open_object_store(through, retries=SHORT), time.monotonic()
    with pytest.raises(ObjectStoreError, match=r"could not write 'b/file'.* \d+ times in \d+ s.*run again"):
        store.upload(make_file(SIZE), "b/file", nothing)
    with pytest.raises(ObjectStoreError, match=r"could not read 'a/file'.* \d+ times in \d+ s.*run again"):
        store.download("a/file", tmp_path / "target", nothing)
    assert time.monotonic() - started < 20


def test_a_server_that_is_not_there_is_told_with_its_store(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = re.sub(r":\d+", f":{free_port()}", server.address)
    url = server.enter(monkeypatch, nobody)
    store = open_object_store(url, retries=SHORT)
    for ask in (lambda: list(store.list("")), lambda: store.read("a"), lambda: store.create("a", b"")):
        with pytest.raises(ObjectStoreError, match=re.escape(url)) as raised:
            ask()
        assert "cannot be reached" in str(raised.value)


@pytest.mark.parametrize("verb", ["list", "folders", "create", "copy", "delete"])
def test_small_requests_get_over_a_503_too(
    through: str, proxy: FaultProxy, retries: Retries, verb: str
) -> None:
    open_object_store(through).create("a", b"1")
    proxy.fault, proxy.times = "503", 2
    store = open_object_store(through, retries=retries)
    ask = {
        "list": lambda: [found.key for found in store.list("")] == ["a"],
        "folders": lambda: store.folders("") == [],
        "create": lambda: store.create("b", b"1"),
        "copy": lambda: store.copy("a", "b") is None,
        "delete": lambda: store.delete("a") is None,
    }
    assert ask[verb]()
    assert proxy.failed == 2


def test_a_creation_whose_answer_was_lost_counts_as_ours(
    through: str, proxy: FaultProxy, retries: Retries
) -> None:
    proxy.fault, proxy.times = "deaf", 1
    assert open_object_store(through, retries=retries).create("a", b"1")
    assert proxy.failed == 1
    assert not open_object_store(through).create("a", b"1")
