"""`python -m llm_assets.gateway.collector`: seals what the gateway writes down, until SIGTERM.

One runs at a time. It may be killed at any moment and started again: nothing is lost and nothing is doubled.
On SIGTERM it seals what is there first.
"""

import logging
import os
import resource
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import filelock

from llm_assets.audit_log import sealer_of
from llm_assets.gateway.housekeeping import housekeeping
from llm_assets.installation.settings import Settings, find_settings
from resources.audit.collecting import Collector
from resources.audit.places import AuditError
from resources.durable_files import private_folder
from resources.gateway.collector_metrics import CollectorMetrics
from resources.processes.unix_sockets import short_address

PAUSE_S = 0.15
"""Between two looks at the spool: the most of what a record waits for, and how small a batch may be."""

AGAIN_S = 1.0
OTHER_S = 30.0
ENDING_S = 20.0
NICENESS = 5

_log = logging.getLogger("llm_assets.gateway.collector")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of each push to Loki
    settings, ending = find_settings(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    os.nice(NICENESS)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a long request keeps each file since open
    try:
        with _alone(settings.audit), housekeeping(settings, ending):
            run(settings, ending)
    except AuditError as error:
        _log.error("%s", error)
        sys.exit(1)


def run(settings: Settings, ending: threading.Event) -> None:
    """Collects until `ending` is set; begins anew, from what is on the disk, where the disk fails."""
    while True:
        try:
            _collect(settings, ending)
            return
        except (OSError, sqlite3.Error, AuditError) as error:
            _log.error("%s; trying again.", error)
            if ending.wait(AGAIN_S):
                return


def _collect(settings: Settings, ending: threading.Event) -> None:
    """Also where `ending` is set from the beginning, what is there is sealed."""
    spool, admin = settings.home / "gateway" / "spool", settings.home / "gateway" / "admin.sock"
    metrics = CollectorMetrics()
    with (
        _shown(metrics, settings.audit),
        closing(sealer_of(settings)) as sealer,
        closing(Collector(spool, sealer, lambda: _answers(admin), metrics.requests.count)) as collector,
    ):
        while not ending.is_set():
            collector.step()
            metrics.looked(sealed=collector.sealed, unsealed=collector.behind)
            if collector.behind:
                ending.wait(AGAIN_S)
            elif not collector.pressed:
                ending.wait(PAUSE_S)
        deadline = time.monotonic() + ENDING_S
        while collector.step() and time.monotonic() < deadline:
            pass


@contextmanager
def _shown(metrics: CollectorMetrics, folder: Path) -> Iterator[None]:
    """Where they cannot be, Prometheus misses them; what still fits on a full disk is sealed all the same."""
    with ExitStack() as stack:
        try:
            stack.enter_context(metrics.shown(private_folder(folder)))
        except OSError as error:
            _log.error("The collector's metrics cannot be shown: %s", error)
        yield


def _answers(admin: Path) -> bool:
    """Whether the gateway runs: somebody listens at its admin socket."""
    try:
        with short_address(admin) as address:
            return _connects(address)
    except FileNotFoundError:
        return False


def _connects(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(address)
        except (TimeoutError, BlockingIOError):
            return True  # it is there, but busy
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raises: AuditError: Another collector of this installation runs, and goes on running."""
    lock = filelock.FileLock(private_folder(folder) / "collector.lock", mode=0o600)
    try:
        lock.acquire(timeout=OTHER_S, poll_interval=PAUSE_S)
    except filelock.Timeout as error:
        raise AuditError(f"Another collector is at work on {folder}; one is enough.") from error
    try:
        yield
    finally:
        lock.release()


if __name__ == "__main__":
    main()
