"""What the collector of audit records says of itself: a file that the metrics listener shows."""

import os
from pathlib import Path

FILE = "metrics.prom"
"""In the folder of the audit log."""

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


def collector_metrics(*, sealed: int, unsealed: int, looked_at: float) -> str:
    """In Prometheus's text format; `looked_at` in epoch seconds."""
    return _TEXT.format(sealed=sealed, unsealed=unsealed, looked_at=looked_at)


def write_collector_metrics(folder: Path, text: str) -> None:
    """Replaces the file, so that a scrape sees it whole."""
    draft = folder / f".{FILE}.{os.getpid()}"
    draft.write_text(text)
    draft.replace(folder / FILE)
