"""What a unit test may not do: start a server, or a process of an engine (`tests/integration` may)."""

import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import urllib3  # noqa: F401 (binds a port as it is imported, to see whether there is IPv6)

HERE = Path(__file__).parent
MARKERS = {"browser", "engine", "mlflow", "prometheus"}
FIXTURES = {"engines", "make_project", "serve_python", "tiny_model", "train_python"}
running: list[str] = []
"""The unit test that runs now: workers of pytest-xdist run tests of other kinds too."""


class NotAUnitTestError(BaseException):
    """A unit test listens. No `except Exception` may keep this from being seen."""


def _refuse_servers(event: str, _arguments: tuple[object, ...]) -> None:
    if event == "socket.bind" and running:
        raise NotAUnitTestError(f"{running[0]} starts a server: move it to tests/integration")


sys.addaudithook(_refuse_servers)  # stays as long as the process


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Function) -> Generator[None, object, object]:
    if HERE in item.path.parents:  # pytest calls this for the tests of all folders
        running.append(item.nodeid)
    try:
        return (yield)
    finally:
        running.clear()


def pytest_runtest_setup(item: pytest.Function) -> None:
    needs = FIXTURES & set(item.fixturenames) | MARKERS & {mark.name for mark in item.iter_markers()}
    assert not needs, f"{item.nodeid} needs {', '.join(sorted(needs))}: move it to tests/integration"
