"""Run as a script: a console whose application says what it was asked. PORT FOLDER TOKENS."""

import json
import sys
from pathlib import Path
from typing import Any

from resources.consoles.consoles import Console
from resources.consoles.front import envoy_before
from resources.consoles.gate import ACCESS, READ_METHODS, Question
from resources.consoles.serving import serve


class EchoReading:
    """Everything but `/changing` by GET, and `/page` by any method, only reads."""

    def refusal(self, question: Question) -> str | None:
        reads = question.method in READ_METHODS and question.path != "/changing"
        if reads or question.path == "/page":
            return None
        return f"{question.method} {question.path} may change something."

    def message_refusal(self, text: str) -> str | None:
        return "no" if "change" in text else None


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    said = {
        "method": scope["method"],
        "path": scope["path"],
        "access": scope[ACCESS],
        "cookie": headers.get("cookie", ""),
        "token": "authorization" in headers,
    }
    headers_sent = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers_sent})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


if __name__ == "__main__":
    port, folder, tokens = sys.argv[1:]
    console = Console(name="echo", title="the echo", port=int(port), folder=Path(folder), tokens=Path(tokens))
    with envoy_before(console):
        serve(echo, console, EchoReading())
