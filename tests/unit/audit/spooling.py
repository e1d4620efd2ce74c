"""A writer of spool files as the gateway's contract says; also a process that writes at full speed.

python spooling.py <spool> <count> <tenants> <pace in s>     prints each id once its end is written
"""

import fcntl
import hashlib
import json
import os
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

DIGEST = "sha256:" + "d" * 64


class GatewaySpool:
    """Appends events as the gateway does: one write(2) a line, its boot's lock held until it is closed."""

    def __init__(
        self,
        folder: Path,
        *,
        boot: int = 1_763_000_000_000,
        file_bytes: int = 16 * 2**20,
        locks: bool = True,
    ) -> None:
        self.folder, self.boot, self.file_bytes = folder, boot, file_bytes
        self._seq, self._written = 0, 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(folder / f"{boot}.lock", os.O_WRONLY | os.O_CREAT, 0o600) if locks else -1
        if locks:
            with suppress(BlockingIOError):  # another one of the same test
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._open()

    def _open(self) -> None:
        self._seq += 1
        self._written = 0
        self.path = self.folder / f"{self.boot}-{self._seq:06d}.jsonl"
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def close(self) -> None:
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def write(self, event: dict[str, Any]) -> None:
        self.write_bytes(json.dumps(event, separators=(",", ":")).encode() + b"\n")

    def write_bytes(self, content: bytes) -> None:
        if self._written >= self.file_bytes:
            os.close(self._file)
            self._open()
        os.write(self._file, content)
        self._written += len(content)

    def request(self, tenant: str = "team-a", **given: Any) -> str:
        """Writes a request's line; its id."""
        event = request_event(tenant, **given)
        self.write(event)
        return str(event["id"])

    def response(self, id: str, **given: Any) -> None:
        self.write(response_event(id, **given))

    def exchange(self, tenant: str = "team-a", *, output: str | None = None, **given: Any) -> str:
        """A request and its response; the id."""
        id = self.request(tenant, **given)
        self.response(id, **({"output": output} if output is not None else {}))
        return id


def request_event(tenant: str, **given: Any) -> dict[str, Any]:
    return {
        "e": "request",
        "id": str(uuid.uuid4()),
        "at": round(time.time(), 6),
        "tenant": tenant,
        "via": "key",
        "key": "k3fzabcd2345",
        "actor": "ci of team-a",
        "subject": "jan.kowalski@example.com",
        "host": f"{tenant}.llm.localhost",
        "path": "/v1/chat/completions",
        "model": "support_bot",
        "requested": "support_bot@production",
        "version": "20261121T184501.123456Z-1a2b3c4d",
        "digest": DIGEST,
        "deployment": f"vllm.{tenant}.support_bot.1",
        "risk_class": "limited",
        "stream": False,
        "sampling": {"temperature": 0.7, "max_tokens": 64},
        "input_sha256": hashlib.sha256(b"input").hexdigest(),
        "input_bytes": 5,
        "remote": "203.0.113.77",
    } | given


def response_event(id: str, **given: Any) -> dict[str, Any]:
    return {
        "e": "response",
        "id": id,
        "at": round(time.time(), 6),
        "status": 200,
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "finish_reason": "stop",
        "served_digest": DIGEST,
        "output_sha256": hashlib.sha256(b"output").hexdigest(),
        "output_bytes": 6,
        "first_byte_ms": 12.5,
        "ms": 40.25,
        "reason": None,
    } | given


def _main(folder: str, count: str, tenants: str, pace_s: str) -> None:
    spool = GatewaySpool(Path(folder), boot=int(time.time() * 1000), file_bytes=64 * 1024)
    for number in range(int(count)):
        print(spool.exchange(f"team-{number % int(tenants)}", subject=f"user-{number % 50}"), flush=True)
        time.sleep(float(pace_s))


if __name__ == "__main__":
    _main(*sys.argv[1:])
