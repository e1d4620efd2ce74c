"""Records as Google Cloud Logging's agent takes them from a container's output: one JSON object a line.

The agent of GKE and Cloud Run reads `severity`, `time`, `httpRequest` and the `logging.googleapis.com/…`
fields (https://cloud.google.com/logging/docs/structured-logging); an `insertId` that it has seen is not
stored twice.
"""

import json
from collections.abc import Sequence
from typing import TextIO

SEVERITIES = {"ok": "INFO", "aborted": "INFO", "denied": "WARNING", "interrupted": "WARNING"}
FAILED = "ERROR"


class CloudLogging:
    """Writes to one stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def send(self, records: Sequence[dict[str, object]]) -> None:
        self._stream.write("".join(f"{json.dumps(entry(record))}\n" for record in records))
        self._stream.flush()


def entry(record: dict[str, object]) -> dict[str, object]:
    """One log entry."""
    what = record.get("event") or record.get("outcome") or record["kind"]
    severity = "NOTICE" if record["kind"] == "event" else SEVERITIES.get(str(what), FAILED)
    labels = {"tenant": record["tenant"], "model": record.get("model") or "-", "outcome": str(what)}
    content = {
        "severity": severity,
        "time": record["sealed_at"],
        "message": f"{record['kind']} {record['id']} of {record['tenant']}: {what}",
        "logging.googleapis.com/insertId": f"{record['tenant']}-{record['seq']}",
        "logging.googleapis.com/labels": labels,
        "audit": record,
    }
    if record.get("status") is not None and record.get("path") is not None:
        content["httpRequest"] = {"status": record["status"], "requestUrl": record["path"]}
    return content
