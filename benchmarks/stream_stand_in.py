"""A stand-in for vLLM's streams: `python -m benchmarks.stream_stand_in PORT DIGEST SOCKET`.

Every POST is answered with `EVENTS` chat completion chunks, one each `EVERY_S`, the usage, and `[DONE]`. An
event costs next to nothing, so that what is measured is the gateway.
"""

import asyncio
import json
import sys

EVENTS = 20
EVERY_S = 0.2
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def events(digest: str) -> list[bytes]:
    common = {
        "id": "chatcmpl-stand-in",
        "object": "chat.completion.chunk",
        "created": 1_763_769_600,
        "model": "support_bot",
        "system_fingerprint": digest,
    }
    word = {"index": 0, "delta": {"content": " word"}, "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    counts = {"prompt_tokens": 40, "completion_tokens": EVENTS, "total_tokens": 40 + EVENTS}
    said = [common | {"choices": [word]}] * EVENTS + [common | {"choices": [last]}]
    said.append(common | {"choices": [], "usage": counts})
    texts = [f"data: {json.dumps(each)}\n\n".encode() for each in said]
    return [_chunk(text) for text in texts] + [_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"]


def _chunk(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: list[bytes]) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.split(b"content-length:")[1].split(b"\r\n")[0]
            await reader.readexactly(int(length))
            writer.write(HEAD)
            for event in said:
                writer.write(event)
                await writer.drain()
                await asyncio.sleep(EVERY_S)
    except (asyncio.IncompleteReadError, ConnectionError):
        return  # the client went away
    finally:
        writer.close()


async def main(port: int, digest: str, path: str) -> None:
    said = events(digest)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, said)

    await asyncio.start_unix_server(serve, path, backlog=2048)
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=2048)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
