"""What the collector of audit records says of itself: a file that the metrics listener shows."""

import logging
import os
import time
from pathlib import Path

FILE = "metrics.prom"
"""In the folder of the audit log."""

EVERY_S = 5.0

_log = logging.getLogger(__name__)

_TEXT = """\
# HELP llm_audit_sealed_records_total Audit records sealed since the collector started.
# TYPE llm_audit_sealed_records_total counter
llm_audit_sealed_records_total {sealed}
# HELP llm_audit_unsealed_records Audit records that could not be sealed yet.
# TYPE llm_audit_unsealed_records gauge
llm_audit_unsealed_records {unsealed}
# HELP llm_audit_looked_timestamp_seconds When the collector last looked for records.
# TYPE llm_audit_looked_timestamp_seconds gauge
llm_audit_looked_timestamp_seconds {looked_at:.3f}
"""


class CollectorMetrics:
    """Writes the file every `EVERY_S` seconds. Where it cannot, Prometheus sees it age."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._written = folder, -EVERY_S

    def looked(self, *, sealed: int, unsealed: int) -> None:
        """The collector has looked for records: so many it sealed in all, so many it could not seal yet."""
        if time.monotonic() - self._written < EVERY_S:
            return
        self._written = time.monotonic()
        text = collector_metrics(sealed=sealed, unsealed=unsealed, looked_at=time.time())
        try:
            write_collector_metrics(self._folder, text)
        except OSError as error:  # a full disk must not keep it from sealing what still fits
            _log.error("The collector's metrics could not be written: %s", error)


def collector_metrics(*, sealed: int, unsealed: int, looked_at: float) -> str:
    """In Prometheus's text format; `looked_at` in epoch seconds."""
    return _TEXT.format(sealed=sealed, unsealed=unsealed, looked_at=looked_at)


def write_collector_metrics(folder: Path, text: str) -> None:
    """Replaces the file, so that a scrape sees it whole."""
    draft = folder / f".{FILE}.{os.getpid()}"
    draft.write_text(text)
    draft.replace(folder / FILE)
