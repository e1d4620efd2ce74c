"""Collectors as processes, and the log of the unit tests."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.unit.audit.conftest import log, make_log

__all__ = ["log", "make_log"]

STARTED: list[subprocess.Popen[bytes]] = []
"""Collectors that tests started as processes."""


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """A test that failed may have left its collectors behind."""
    yield
    for process in STARTED:
        process.kill()
        process.wait()
    STARTED.clear()
