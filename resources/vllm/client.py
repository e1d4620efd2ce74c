"""A client of one vLLM server, for the few questions the platform itself asks it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from resources.vllm.program import VllmError

HEALTH_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 300
Message = dict[str, str]
# The model's own defaults (generation_config.json) may hold a repetition penalty; offline there is none.
GREEDY = {"temperature": 0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


class VllmClient:
    """Talks to the server at `address` (`http://127.0.0.1:8000`)."""

    def __init__(self, address: str, api_key: str) -> None:
        self.address = address
        self._http = httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=HEALTH_TIMEOUT_S),
            trust_env=False,  # a company's proxy is not for this machine's own servers
            # Without TLS there is nothing to verify; loading certificates is most of a client's cost.
            verify=not address.startswith("http://"),
        )

    def __enter__(self) -> "VllmClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def healthy(self) -> bool:
        """Whether the server is up. It says so before it has answered anything: see `answer`."""
        try:
            return self._http.get("/health", timeout=HEALTH_TIMEOUT_S).is_success
        except httpx.TransportError:
            return False

    def in_flight(self) -> int:
        """How many requests run or wait.

        Raises:
            VllmError: It says so in a form that is not known.
        """
        try:
            lines = self._http.get("/metrics", timeout=HEALTH_TIMEOUT_S).text.splitlines()
        except httpx.TransportError:
            return 0
        names = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
        with self._understanding("/metrics"):
            return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith(names))

    def digest(self, model: str) -> str:
        """The digest on a response of the server, asked just now.

        Raises:
            VllmError: As for `chat`, and also when the response carries none.
        """
        reply = self.chat(model, [{"role": "user", "content": "?"}], max_tokens=1)
        with self._understanding("/v1/chat/completions"):
            return str(reply["system_fingerprint"])

    def chat(self, model: str, messages: list[Message], **options: Any) -> dict[str, Any]:
        """A whole chat completion as the server gives it.

        Raises:
            VllmError: The server refused, failed, or cannot be reached.
        """
        return self._request(
            "POST", "/v1/chat/completions", {"model": model, "messages": messages, **options}
        )

    def stream(self, model: str, messages: list[Message], **options: Any) -> Iterator[str]:
        """The pieces of an answer's text as they come.

        Raises:
            VllmError: As for `chat`, and also when the answer breaks off.
        """
        body = {"model": model, "messages": messages, "stream": True, **options}
        try:
            with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
                if not response.is_success:
                    response.read()
                self._check(response)
                yield from self._pieces(response.iter_lines())
        except httpx.TransportError as fault:
            raise self._unreachable(fault) from fault

    def _pieces(self, lines: Iterator[str]) -> Iterator[str]:
        finished = False
        for line in lines:
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            with self._understanding("/v1/chat/completions"):
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:  # the status was 200 long before
                    raise VllmError(f"vLLM at {self.address} broke off its answer: {event['error']}")
                pieces = [choice["delta"].get("content") or "" for choice in event["choices"]]
                finished = finished or any(choice.get("finish_reason") for choice in event["choices"])
            yield from pieces
        if not finished:
            raise VllmError(f"vLLM at {self.address} broke off its answer without a finish_reason.")

    def answer(self, model: str, known: dict[str, Any]) -> dict[str, Any]:
        """The server's own answer to a known question, and its scores of the known one (`vllm_answers`).

        Raises:
            VllmError: As for `chat`, and also when the answer has another form than asked for.
        """
        asked = [{"role": "user", "content": known["question"]}]
        known_ids = [token["id"] for token in known["tokens"]]
        options = {"max_tokens": len(known_ids), "logprobs": True, "return_token_ids": True, **GREEDY}
        reply = self.chat(model, asked, **options)
        scores = self._scores(model, known["prompt_token_ids"], known_ids)
        with self._understanding("/v1/chat/completions"):
            choice = reply["choices"][0]
            logprobs = [entry["logprob"] for entry in choice["logprobs"]["content"]]
            ids = zip(choice["token_ids"], logprobs, strict=True)
            return {
                "text": choice["message"]["content"],
                "digest": reply["system_fingerprint"],
                "prompt_token_ids": reply["prompt_token_ids"],
                "tokens": [{"id": id_, "logprob": logprob} for id_, logprob in ids],
                "scores": scores,
            }

    def _scores(self, model: str, prompt_ids: list[int], answer_ids: list[int]) -> list[float]:
        """The log probability of each token of an answer that is put to the model as it stands."""
        body = {
            "model": model,
            "prompt": prompt_ids + answer_ids,
            "max_tokens": 1,
            "prompt_logprobs": 0,
            **GREEDY,
        }
        reply = self._request("POST", "/v1/completions", body)
        with self._understanding("/v1/completions"):
            scored = reply["choices"][0]["prompt_logprobs"][len(prompt_ids) :]
            return [entry[str(id_)]["logprob"] for entry, id_ in zip(scored, answer_ids, strict=True)]

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.TransportError as fault:
            raise self._unreachable(fault) from fault
        self._check(response)
        with self._understanding(path):
            return dict(response.json())

    @contextmanager
    def _understanding(self, path: str) -> Iterator[None]:
        """A successful response of an unknown form: another program on the port, or another vLLM."""
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError) as fault:
            raise VllmError(
                f"vLLM at {self.address} answered {path} in a form that is not known ({fault!r}). "
                "Is another program on that port, or another version of vLLM?"
            ) from fault

    def _check(self, response: httpx.Response) -> None:
        if not response.is_success:
            path = response.request.url.path
            text = response.text[:500]
            raise VllmError(
                f"vLLM at {self.address} answered {path} with HTTP {response.status_code}: {text}"
            )

    def _unreachable(self, fault: httpx.TransportError) -> VllmError:
        return VllmUnreachable(f"vLLM at {self.address} cannot be reached: {fault or type(fault).__name__}")


class VllmUnreachable(VllmError):
    """No connection, or it broke: the server may have gone, or another may have taken over."""
