"""A stand-in for the `vllm` program: an HTTP server that speaks as much of its API as a deploy uses.

No model is behind it: `behaviour.json` in the model folder says what it answers and how it fails.
Like vLLM it keeps a second process and is killed by a signal.
"""

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

ARGUMENTS = sys.argv[2:]
BEHAVIOUR = json.loads((Path(ARGUMENTS[0]) / "behaviour.json").read_text())


def option(name: str) -> str:
    return ARGUMENTS[ARGUMENTS.index(name) + 1]


class Handler(BaseHTTPRequestHandler):
    def address_string(self) -> str:
        return "a unix socket"

    def do_GET(self) -> None:
        self.reply({} if self.path in ("/health", "/metrics") else None)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != f"Bearer {os.environ['VLLM_API_KEY']}":
            self.reply({"error": "Unauthorized"}, 401)
        elif self.path == "/v1/completions":
            self.reply({"choices": [{"prompt_logprobs": [self.score(id_) for id_ in body["prompt"]]}]})
        elif body.get("stream"):
            self.stream()
        else:
            if BEHAVIOUR.get("stalls") and body.get("max_tokens") == 1:  # proven it was before
                time.sleep(600)
            time.sleep(BEHAVIOUR.get("answer_s", 0))
            self.reply(self.completion(body))

    def score(self, id_: int) -> dict[str, Any]:
        return {str(id_): {"logprob": BEHAVIOUR["logprob"]}}

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        if fault := BEHAVIOUR.get("dies_when_asked"):
            print(fault, flush=True)
            os._exit(1)
        ids = BEHAVIOUR["answer"]
        return {
            "system_fingerprint": self.digest(),
            "prompt_token_ids": list(body["messages"][-1]["content"].encode()),
            "choices": [
                {
                    "message": {"content": "".join(map(chr, ids))},
                    "token_ids": ids,
                    "logprobs": {"content": [{"logprob": BEHAVIOUR["logprob"]} for _ in ids]},
                }
            ],
        }

    def digest(self) -> str:
        return BEHAVIOUR.get("fingerprint", option("--fingerprint-value"))

    def stream(self) -> None:
        pieces: list[dict[str, Any]] = [{"delta": {"content": chr(id_)}} for id_ in BEHAVIOUR["answer"]]
        if not BEHAVIOUR.get("breaks_off"):
            pieces[-1]["finish_reason"] = "stop"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for piece in pieces:
            event = {"choices": [piece], "system_fingerprint": self.digest()}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            time.sleep(BEHAVIOUR.get("token_s", 0))
        self.wfile.write(b"data: [DONE]\n\n")

    def reply(self, value: object, status: int = 200) -> None:
        text = json.dumps(value).encode()
        self.send_response(404 if value is None else status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    subprocess.Popen([sys.executable, "-IS", "-c", "import time; time.sleep(600)"])
    if fault := BEHAVIOUR.get("dies_while_starting"):
        print(f"(EngineCore pid={os.getpid()}) ERROR 11-21 18:34:35 [core.py:1512] {fault}", flush=True)
        print("RuntimeError: Engine core initialization failed. See root cause above.", flush=True)
        sys.exit(1)
    time.sleep(BEHAVIOUR.get("loads_s", 0))
    if "--uds" in ARGUMENTS:
        Server(option("--uds"), Handler).serve_forever()
    else:
        ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()
