"""What Envoy tells the filter of requests that ended without it: an access log, a JSON line for each.

Those are requests whose client or server went away in the middle, and requests that Envoy refused for want of
memory before any filter ran. `deployments/gateway/ends.lua` follows the file and puts them on the record.
"""

from pathlib import Path

from resources.json_values import Json

ENDS_FILE = "ends.jsonl"
OVERLOADED = "overload"
"""Envoy's own name (RESPONSE_CODE_DETAILS) of a refusal for want of memory."""

AT_ONCE = ("--file-flush-min-size-kb", "0")
"""Envoy's option that makes a line count when it is written, and not when there are many."""


_TYPES = "type.googleapis.com/envoy.extensions.access_loggers"
_LINE = {
    "id": "%REQ(X-REQUEST-ID)%",
    "told": "%RESP(X-REQUEST-ID)%",
    "at": "%START_TIME(%s.%6f)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "remote": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
}


def ends_log(folder: Path) -> Json:
    """The access log of requests with any of Envoy's response flags, and of all 503: a refusal has none."""
    unavailable = {"op": "EQ", "value": {"default_value": 503, "runtime_key": "gateway.unused"}}
    unusual = [{"response_flag_filter": {}}, {"status_code_filter": {"comparison": unavailable}}]
    return {
        "name": "ends",
        "filter": {"or_filter": {"filters": unusual}},
        "typed_config": {
            "@type": f"{_TYPES}.file.v3.FileAccessLog",
            "path": str(folder / ENDS_FILE),
            "log_format": {"json_format": _LINE},
        },
    }
