"""What a collector that runs says of itself."""

import threading
import time
from pathlib import Path

import pytest

from llm_assets.gateway.collector import run
from llm_assets.settings import Settings
from resources.gateway.collector_metrics import FILE, CollectorMetrics
from tests.unit.audit.spooling import GatewaySpool


def series(path: Path) -> dict[str, float]:
    lines = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
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
        deadline = time.monotonic() + 30
        while not (settings.audit / FILE).exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        found = series(settings.audit / FILE)
    finally:
        ending.set()
        collector.join()
    assert found["llm_audit_sealed_records_total"] == 3
    assert found["llm_audit_unsealed_records"] == 0
    assert time.time() - found["llm_audit_looked_timestamp_seconds"] < 30


def test_a_folder_that_is_gone_stops_no_collector(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    CollectorMetrics(tmp_path / "gone").looked(sealed=1, unsealed=0)
    assert "could not be written" in caplog.text
