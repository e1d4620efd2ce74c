"""Whose turn it is: deploys of one tenant and model come one after another, and a stop ends one under way."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from resources.serving.servers import Log
from resources.vllm.program import VllmError

DEPLOY_TURN_S = 1800
STOP_TURN_S = 60


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The lock of one tenant and model; the operating system frees it when its holder dies."""

    locks: Path
    tenant: str
    model: str

    @property
    def _lock(self) -> filelock.BaseFileLock:
        self.locks.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(self.locks / f"serving--{self.tenant}--{self.model}.lock")

    @contextmanager
    def to_deploy(self, log: Log) -> Iterator[None]:
        lock = self._lock
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log(f"Another deploy of {self.tenant}/{self.model} is running; waiting for it.")
            self._wait_for(lock)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def if_free(self) -> Iterator[bool]:
        """Whether the turn was free; it is had then."""
        lock = self._lock
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _wait_for(self, lock: filelock.BaseFileLock) -> None:
        try:
            lock.acquire(timeout=DEPLOY_TURN_S)
        except filelock.Timeout as fault:
            raise VllmError(
                f"Another deploy of {self.tenant}/{self.model} has been running for over "
                f"{DEPLOY_TURN_S // 60} minutes. Find its run in the Dagster UI under Runs and end it, then "
                "try again."
            ) from fault

    @contextmanager
    def to_stop(self, end_servers: Callable[[], None]) -> Iterator[None]:
        """A running deploy is not waited for: its new server is ended, upon which it gives up."""
        lock = self._lock
        deadline = time.monotonic() + STOP_TURN_S
        while not lock.is_locked:
            try:
                lock.acquire(timeout=1)
            except filelock.Timeout:
                if time.monotonic() > deadline:
                    raise VllmError(
                        f"A deploy of {self.tenant}/{self.model} does not end; stop its run first."
                    ) from None
                end_servers()
        try:
            yield
        finally:
            lock.release()
