"""A hub to fetch base models from."""

import threading
from collections.abc import Iterator

import pytest

from tests.servers.hub import Hub
from tests.unit.base_models.conftest import folder

__all__ = ["folder"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub that HF_ENDPOINT points to."""
    running = Hub()
    thread = threading.Thread(target=running.server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", running.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield running
    running.server.shutdown()
    running.server.server_close()
    thread.join()
