"""What a collector that runs says of itself."""

import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from llm_assets.gateway.collector import run
from llm_assets.installation.settings import Settings
from resources.gateway.collector_metrics import CollectorMetrics
from resources.gateway.metrics import COLLECTOR_SOCKET
from tests.integration.monitoring.conftest import MakeDoor
from tests.unit.audit.spooling import GatewaySpool

WAIT_S = 30


def scraped(folder: Path) -> dict[str, float]:
    """What stands without labels; nothing while no collector runs."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(folder / COLLECTOR_SOCKET))
        except (FileNotFoundError, ConnectionRefusedError):
            return {}
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        text = b"".join(iter(lambda: client.recv(65536), b"")).decode().partition("\r\n\r\n")[2]
    lines = [line.split() for line in text.splitlines() if not line.startswith("#") and "{" not in line]
    return {name: float(value) for name, value in lines}


def test_a_collector_says_how_much_it_sealed_and_when_it_looked(tmp_path: Path) -> None:
    settings, ending = Settings(root=tmp_path, catalog=tmp_path, home=tmp_path), threading.Event()
    spool = GatewaySpool(tmp_path / "gateway" / "spool")
    for _ in range(3):
        spool.exchange()
    spool.close()
    collector = threading.Thread(target=run, args=(settings, ending))
    collector.start()
    try:
        deadline = time.monotonic() + WAIT_S
        while (found := scraped(settings.audit)).get("llm_audit_sealed_records_total") != 3:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
    finally:
        ending.set()
        collector.join()
    assert found["llm_audit_unsealed_records"] == 0
    assert time.time() - found["llm_audit_looked_timestamp_seconds"] < WAIT_S
    assert scraped(settings.audit) == {}


def test_a_collector_that_was_killed_leaves_no_socket_that_stops_the_next(tmp_path: Path) -> None:
    (tmp_path / COLLECTOR_SOCKET).touch()
    with CollectorMetrics().shown(tmp_path):
        assert "llm_audit_unsealed_records" in scraped(tmp_path)


def test_metrics_that_cannot_be_shown_stop_no_collector(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings, ending = Settings(root=tmp_path, catalog=tmp_path, home=tmp_path), threading.Event()
    (settings.audit / COLLECTOR_SOCKET / "in the way").mkdir(parents=True)
    spool = GatewaySpool(tmp_path / "gateway" / "spool")
    spool.exchange()
    spool.close()
    ending.set()  # what is there is sealed all the same
    run(settings, ending)
    assert "metrics cannot be shown" in caplog.text
    assert list(settings.audit.rglob("*.jsonl"))


def test_without_a_collector_the_scrape_fails(make_door: MakeDoor) -> None:
    door = make_door()
    url = f"{door.url}/metrics/audit"
    assert httpx.get(url, headers=door.headers).status_code == httpx.codes.OK
    (door.home / "audit" / COLLECTOR_SOCKET).unlink()
    assert httpx.get(url, headers=door.headers).status_code == httpx.codes.SERVICE_UNAVAILABLE
