"""Grafana Loki's push API (`/loki/api/v1/push`): metadata of records, no text, with few labels."""

import json
import logging
from collections.abc import Sequence

import httpx

from resources.audit.chain import seconds
from resources.audit.shipping import ShippingError

TIMEOUT_S = 10.0
JOB = "llm-assets-audit"

_log = logging.getLogger(__name__)


class Loki:
    """One Loki, such as `http://loki:3100`; tenant, model and outcome are its labels."""

    def __init__(self, url: str) -> None:
        self._address = f"{url.rstrip('/')}/loki/api/v1/push"
        self._client = httpx.Client(timeout=TIMEOUT_S)

    def send(self, records: Sequence[dict[str, object]]) -> None:
        """Raises: ShippingError: It does not answer, or takes nothing now (429, 5xx)."""
        try:
            answer = self._client.post(self._address, json=push(records))
        except httpx.HTTPError as error:
            raise ShippingError(
                f"Loki at {self._address} took no audit records ({error or type(error).__name__}). They are "
                "kept and sent later; check LLM_ASSETS_LOKI_URL."
            ) from error
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error:
            raise ShippingError(
                f"Loki at {self._address} took no audit records: HTTP {answer.status_code} "
                f"{answer.text[:200]}. They are kept and sent later."
            )
        if not answer.is_success:  # what it refuses once (older than it takes, say) it refuses always
            _log.error("Loki refused %d records for good: %s", len(records), answer.text[:500])

    def close(self) -> None:
        self._client.close()


def push(records: Sequence[dict[str, object]]) -> dict[str, object]:
    """The body of a push."""
    streams: dict[tuple[str, str, str], list[list[str]]] = {}
    for record in records:
        outcome = record.get("outcome") or record["kind"]
        labels = (str(record["tenant"]), str(record.get("model") or "-"), str(outcome))
        at = str(round(seconds(str(record["sealed_at"])) * 1e9))
        streams.setdefault(labels, []).append([at, json.dumps(record, sort_keys=True)])
    names = ("tenant", "model", "outcome")
    return {
        "streams": [
            {"stream": {"job": JOB, **dict(zip(names, labels, strict=True))}, "values": values}
            for labels, values in streams.items()
        ]
    }
