"""Requests without pause while something changes: on new connections, on kept ones, and streamed."""

import threading
import time
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from resources.waiting import wait_until

Kind = Literal["new connection", "kept connection", "stream"]
KINDS: tuple[Kind, ...] = ("new connection", "kept connection", "stream")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`status` is 0 where the connection broke or a stream has no end; `text` says how."""

    kind: Kind
    status: int
    request_id: str = ""
    digest: str = ""
    text: str = ""


class Hammer:
    """Asks in some threads of each kind and keeps every answer.

    Args:
        address: A tenant's base URL, `http://…/t/team-a/v1`.
        asked: The body of a chat completion.
    """

    def __init__(self, address: str, key: str, asked: dict[str, Any], *, threads_of_a_kind: int = 2) -> None:
        self.answers: list[Answer] = []
        self._url, self._asked = f"{address}/chat/completions", asked
        self._headers = {"authorization": f"Bearer {key}"}
        self._over = threading.Event()
        kinds = [kind for kind in KINDS for _ in range(threads_of_a_kind)]
        self._threads = [threading.Thread(target=self._ask_on, args=(kind,)) for kind in kinds]

    @property
    def failed(self) -> list[Answer]:
        return [each for each in self.answers if each.status != 200]

    def wait_for(self, count: int, *, timeout_s: float = 60) -> None:
        """Returns once so many more were answered."""
        wanted = len(self.answers) + count
        wait_until(
            lambda: len(self.answers) >= wanted, what=f"{count} answers", timeout_s=timeout_s, every_s=0.02
        )

    def _ask_on(self, kind: Kind) -> None:
        client = self._client()
        while not self._over.is_set():
            self.answers.append(self._ask(kind, client))
            if kind == "new connection" or self.answers[-1].status == 0:
                client.close()
                client = self._client()
        client.close()

    def _client(self) -> httpx.Client:
        return httpx.Client(headers=self._headers, trust_env=False, timeout=120)

    def _ask(self, kind: Kind, client: httpx.Client) -> Answer:
        try:
            answer = client.post(self._url, json={**self._asked, "stream": kind == "stream"})
        except httpx.TransportError as fault:
            return Answer(kind=kind, status=0, text=repr(fault))
        whole = kind != "stream" or answer.text.rstrip().endswith("[DONE]")
        return Answer(
            kind=kind,
            status=answer.status_code if whole else 0,
            request_id=answer.headers.get("x-request-id", ""),
            digest=answer.headers.get("x-llm-digest", ""),
            text="" if answer.is_success and whole else answer.text,
        )

    def __enter__(self) -> "Hammer":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        deadline = time.monotonic() + 180
        for thread in self._threads:
            thread.join(timeout=max(0, deadline - time.monotonic()))
            assert not thread.is_alive(), "a request has hung for three minutes"
