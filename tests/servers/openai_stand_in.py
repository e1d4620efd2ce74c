"""A STAND-IN for vLLM's OpenAI server: answers in its form, at once, and breaks as it is told to.

`python -m tests.servers.openai_stand_in PORT --digest sha256:…`. A member `stand_in` of a request says how
the answer is to be: see `Behaviour`. `GET /seen` gives the last requests as they arrived, with `--remember`.
As in vLLM, a stream names its digest only in its last event.
"""

import argparse
import asyncio
import json
from collections import deque
from dataclasses import asdict, dataclass, fields
from typing import Any

WORDS = ("Your", " invoice", " is", " on", " its", " way", ".")
PROMPT_TOKENS = 11
_HEAD = "HTTP/1.1 {} OK\r\ndate: now\r\nserver: uvicorn\r\n"


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How one answer is to be."""

    delay_s: float = 0  # before the first byte
    pause_s: float = 0  # before every event of a stream
    words: int = len(WORDS)  # how many tokens it says
    die_after: int | None = None  # close the connection after so many events (or bytes, of a whole answer)
    digest: str | None = None  # claim this one
    nameless: bool = False  # name no digest at all
    status: int = 200
    body: str | None = None  # answer with this, whatever it is
    content_type: str = "application/json"
    cut: int | None = None  # write a stream in pieces of so many bytes
    no_end: bool = False  # end a stream without `[DONE]`
    tool: bool = False  # call a tool instead of saying something
    newline: str = "\n"  # what ends the lines of a stream
    finish_reason: str = "stop"
    chunked: bool = False  # say no length of a whole answer
    named: str | None = None  # of the Responses API: claim this model


_PLAIN = Behaviour()
_NAMES = {field.name for field in fields(Behaviour)}


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    line: str
    headers: list[tuple[str, str]]
    body: str


class Server:
    """What all connections share."""

    def __init__(self, digest: str, *, remember: bool) -> None:
        self.digest = digest
        self.seen: deque[Seen] = deque(maxlen=1000 if remember else 0)
        self.whole: dict[str, bytes] = {}

    def whole_chat(self, model: str) -> bytes:
        """A whole answer of a chat, made once for each model."""
        if model not in self.whole:
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": "".join(WORDS)},
                "finish_reason": "stop",
            }
            self.whole[model] = _json(
                self.envelope("chat.completion", model, [choice]) | {"usage": _usage(len(WORDS))}
            )
        return self.whole[model]

    def envelope(self, kind: str, model: str, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "object": kind,
            "created": 1763000000,
            "model": model,
            "choices": choices,
            "system_fingerprint": self.digest,
        }


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _usage(words: int) -> dict[str, int]:
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": words, "total_tokens": PROMPT_TOKENS + words}


def _text(words: int) -> str:
    return "".join((WORDS * (words // len(WORDS) + 1))[:words])


def _message(words: int, tool: bool) -> dict[str, Any]:
    if tool:
        call = {"name": "find_invoice", "arguments": '{"number":"7"}'}
        return {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": call}],
        }
    return {"role": "assistant", "content": _text(words)}


def _response(asked: dict[str, Any], how: Behaviour, status: str) -> dict[str, Any]:
    """A response object of the Responses API. As in vLLM it names the model and no digest."""
    text = _text(how.words)
    message = {"type": "message", "content": [{"type": "output_text", "text": text}]}
    call = {"type": "function_call", "name": "find_invoice", "arguments": '{"number":"7"}'}
    usage = {
        "input_tokens": PROMPT_TOKENS,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": how.words,
    }
    over = status != "in_progress"
    return {
        "id": "resp_1",
        "object": "response",
        "model": how.named or asked["model"],
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "output": [call if how.tool else message] if over else [],
        "usage": usage if over else None,
    }


def _response_status(how: Behaviour) -> str:
    return "incomplete" if how.finish_reason == "length" else "completed"


def _response_events(asked: dict[str, Any], how: Behaviour) -> list[dict[str, Any]]:
    begun = _response(asked, how, "in_progress")
    events: list[dict[str, Any]] = [
        {"type": f"response.{kind}", "response": begun} for kind in ("created", "in_progress")
    ]
    words = [WORDS[at % len(WORDS)] for at in range(how.words)]
    events += [{"type": "response.output_text.delta", "output_index": 0, "delta": word} for word in words]
    if not how.no_end:
        events.append(
            {"type": "response.completed", "response": _response(asked, how, _response_status(how))}
        )
    return [{**event, "sequence_number": at} for at, event in enumerate(events)]


def _whole(server: Server, path: str, asked: dict[str, Any], how: Behaviour) -> bytes:
    model = asked["model"]
    if path == "/v1/embeddings":
        vector = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
        return _json({"object": "list", "model": model, "data": [vector], "usage": _usage(0)})
    if path == "/v1/responses":
        return _json(_response(asked, how, _response_status(how)))
    if how == _PLAIN and path == "/v1/chat/completions" and "n" not in asked:
        return server.whole_chat(model)
    reason = "tool_calls" if how.tool else how.finish_reason
    message = _message(how.words, how.tool)
    said = {"text": message["content"]} if path == "/v1/completions" else {"message": message}
    choices = [{"index": at, **said, "finish_reason": reason} for at in range(asked.get("n", 1))]
    answer = server.envelope("chat.completion", model, choices) | {"usage": _usage(how.words * len(choices))}
    if how.digest or how.nameless:
        answer["system_fingerprint"] = how.digest
    return _json(answer)


def _events(server: Server, path: str, asked: dict[str, Any], how: Behaviour) -> list[bytes]:
    """The data of a stream's events."""
    chat = path == "/v1/chat/completions"
    base = server.envelope("chat.completion.chunk", asked["model"], [])
    digest = base.pop("system_fingerprint")
    events = []
    for at in range(how.words):
        word, last = WORDS[at % len(WORDS)], at == how.words - 1
        said = {"delta": _message(1, True) if how.tool else {"content": word}} if chat else {"text": word}
        events.append(
            base | {"choices": [{"index": 0, **said, "finish_reason": how.finish_reason if last else None}]}
        )
    end = (
        base | {"usage": _usage(how.words)}
        if (asked.get("stream_options") or {}).get("include_usage")
        else events[-1]
    )
    if not how.nameless:
        end["system_fingerprint"] = how.digest or digest
    if end is not events[-1]:
        events.append(end)
    return [*map(_json, events), *([] if how.no_end else [b"[DONE]"])]


class Connection(asyncio.Protocol):
    """One client's connection; requests on it are answered one after another."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""
        self.task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        if self.task:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.task:
            self._next()

    def _next(self) -> None:
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = [
            (name.lower(), value.strip()) for name, _, value in (each.partition(":") for each in lines)
        ]
        length = int(dict(headers).get("content-length", "0"))
        if len(rest) < length:
            return
        body, self.buffer = rest[:length], rest[length:]
        self.server.seen.append(Seen(line, headers, body.decode()))
        self._answer(line.split()[1], body)

    def _answer(self, path: str, body: bytes) -> None:
        if path == "/seen":
            self.write_whole(_json([asdict(each) for each in self.server.seen]))
            return self._next()
        asked = json.loads(body) if body else {}
        if not asked.get("stream") and "stand_in" not in asked:
            self.write_whole(_whole(self.server, path, asked, _PLAIN))
            return self._next()
        self.task = asyncio.get_running_loop().create_task(self._take_time(path, asked))
        return None

    async def _take_time(self, path: str, asked: dict[str, Any]) -> None:
        how = Behaviour(
            **{name: value for name, value in asked.get("stand_in", {}).items() if name in _NAMES}
        )
        await asyncio.sleep(how.delay_s)
        if how.body is not None or how.status != 200:
            self.write_whole((how.body or "").encode(), status=how.status, kind=how.content_type)
        elif asked.get("stream") and path == "/v1/responses":
            events = _response_events(asked, how)
            await self._stream([_json(event) for event in events], how, [event["type"] for event in events])
        elif asked.get("stream") and path != "/v1/embeddings":
            await self._stream(_events(self.server, path, asked, how), how)
        else:
            whole = _whole(self.server, path, asked, how)
            self.write_whole(whole, only=how.die_after, chunked=how.chunked)
        self.task = None
        self._next()

    def write_whole(
        self,
        body: bytes,
        *,
        status: int = 200,
        kind: str = "application/json",
        only: int | None = None,
        chunked: bool = False,
    ) -> None:
        length = "transfer-encoding: chunked" if chunked else f"content-length: {len(body)}"
        head = f"{_HEAD.format(status)}content-type: {kind}\r\n{length}\r\n\r\n"
        if chunked:
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        self.transport.write(head.encode() + body[:only])
        if only is not None:
            self.transport.close()

    async def _stream(self, events: list[bytes], how: Behaviour, kinds: list[str] | None = None) -> None:
        kind = "text/event-stream; charset=utf-8"
        head = f"{_HEAD.format(200)}content-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        self.transport.write(head.encode())
        line = how.newline.encode()
        for number, event in enumerate(events):
            if number == how.die_after:
                return self.transport.abort()
            if how.pause_s:
                await asyncio.sleep(how.pause_s)
            kind_line = b"event: " + kinds[number].encode() + line if kinds else b""
            text = kind_line + b"data: " + event + line + line
            for at in range(0, len(text), how.cut or len(text)):
                piece = text[at : at + (how.cut or len(text))]
                self.transport.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                if how.cut:
                    await asyncio.sleep(0.002)  # so that it arrives as a piece of its own
        self.transport.write(b"0\r\n\r\n")
        return None


async def serve(port: int, digest: str, *, remember: bool) -> None:
    """Answers on 127.0.0.1 until it is ended."""
    server = Server(digest, remember=remember)
    listening = await asyncio.get_running_loop().create_server(
        lambda: Connection(server), "127.0.0.1", port, backlog=1024
    )
    async with listening:
        await listening.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--digest", required=True, help="the digest that it says it serves")
    parser.add_argument("--remember", action="store_true", help="keep the last requests for GET /seen")
    given = parser.parse_args()
    asyncio.run(serve(given.port, given.digest, remember=given.remember))


if __name__ == "__main__":
    main()
