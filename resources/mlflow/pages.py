"""MLflow's page with what its own settings cannot turn off: it is kept in each browser.

Without this its page opens with a banner about usage data and an assistant over a quarter of it, which wants
to run programs on the server. The names are those of MLflow 3.17; where a later one renames them, the
banner is back, and a test says so.
"""

import json
from pathlib import Path
from typing import Any

from resources.consoles.gate import Application, Receive, Scope, Send
from resources.mlflow.reading import ASSISTANT

BROWSER_SETTINGS = {
    "mlflow.telemetry.info.alert.dismissed_v1": "true",
    "mlflow.settings.telemetry.enabled_v1": "false",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "_mlflow_model_registry_promo_modal_dismissed_v1": "true",
    "mlflow.workflowType_v1": '"machine_learning"',
}
"""What each browser keeps, by its name there; what somebody has set stays."""
_SCRIPT = (
    f"for (const [name, value] of Object.entries({json.dumps(BROWSER_SETTINGS)}))"
    " if (localStorage.getItem(name) === null) localStorage.setItem(name, value);"
)
_HEAD = f"<script>{_SCRIPT}</script><style>[data-assistant-ui]{{display: none !important}}</style></head>"


class Pages:
    """MLflow's application without its assistant and its telemetry."""

    def __init__(self, app: Application, index: Path) -> None:
        self._app = app
        page = index.read_text(encoding="utf-8")
        if "</head>" not in page:
            raise ValueError(f"{index} has no </head>: this is not the page of the MLflow that is locked.")
        self._page = page.replace("</head>", _HEAD, 1).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            await _answer(scope, send, 200, b"text/html; charset=utf-8", self._page)
        elif ASSISTANT.fullmatch(scope["path"]):
            await _answer(scope, send, 404, b"text/plain", b"MLflow's assistant is turned off here.\n")
        else:
            await self._app(scope, receive, send)


async def _answer(scope: Scope, send: Send, status: int, kind: bytes, body: bytes) -> None:
    headers: list[Any] = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"x-frame-options", b"SAMEORIGIN"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
