"""A client of one vLLM server, for the few questions the platform itself asks it."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from resources.processes.unix_sockets import short_address
from resources.seams.serving import ServingError

HEALTH_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 300
PROGRESS = ("vllm:iteration_tokens_total_count", "vllm:prompt_tokens_total", "vllm:generation_tokens_total")
Message = dict[str, str]
# The model's own defaults (generation_config.json) may hold a repetition penalty; offline there is none.
GREEDY = {"temperature": 0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


class VllmClient:
    """Talks to one server for as long as a `with` block runs: at a unix socket's path, or at `host:port`."""

    def __init__(self, address: Path | str, api_key: str) -> None:
        self.address = address
        self._api_key = api_key

    def __enter__(self) -> "VllmClient":
        """Raises:
        VllmUnreachable: Nothing listens there.
        """
        with ExitStack() as held:
            base_url, socket_path = f"http://{self.address}", None
            if isinstance(self.address, Path):
                base_url, socket_path = "http://vllm", self._socket_path(self.address, held)
            client = httpx.Client(
                base_url=base_url,
                headers={"Authorization": f"Bearer {self._api_key}"},
                timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=HEALTH_TIMEOUT_S),
                # Without TLS there is nothing to verify; loading certificates is most of a client's cost.
                transport=httpx.HTTPTransport(uds=socket_path, verify=False),
            )
            self._http = held.enter_context(client)
            self._held = held.pop_all()
        return self

    def _socket_path(self, path: Path, held: ExitStack) -> str:
        """Looked for here, because httpx forgets to close what was refused (httpcore 1.0)."""
        try:
            address = held.enter_context(short_address(path))
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(HEALTH_TIMEOUT_S)
                asking.connect(address)
        except OSError as fault:
            raise self._unreachable(fault) from fault
        return address

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def healthy(self) -> bool:
        """Whether the server is up. It says so before it has answered anything: see `answer`."""
        try:
            return self._http.get("/health", timeout=HEALTH_TIMEOUT_S).is_success
        except httpx.TransportError:
            return False

    def counters(self) -> str:
        """What its engine has done so far, as a text that changes with every step that it reports.

        Raises:
            ServingError: It does not answer.
        """
        try:
            text = self._http.get("/metrics", timeout=HEALTH_TIMEOUT_S).text
        except httpx.TransportError as fault:
            raise self._unreachable(fault) from fault
        return "\n".join(line for line in text.splitlines() if line.startswith(PROGRESS))

    def answers(self, model: str, *, timeout_s: float) -> bool:
        """Whether it says anything, a refusal included, to a question for one token within that time."""
        body = {"model": model, "messages": [{"role": "user", "content": "?"}], "max_tokens": 1}
        try:
            self._http.post("/v1/chat/completions", json=body, timeout=timeout_s)
        except httpx.TransportError as fault:
            return not isinstance(fault, httpx.TimeoutException)
        return True

    def chat(self, model: str, messages: list[Message], **options: Any) -> dict[str, Any]:
        """A whole chat completion as the server gives it.

        Raises:
            ServingError: The server refused, failed, or cannot be reached.
        """
        return self._request(
            "POST", "/v1/chat/completions", {"model": model, "messages": messages, **options}
        )

    def answer(self, model: str, known: dict[str, Any]) -> dict[str, Any]:
        """The server's own answer to a known question, and its scores of the known one (`vllm_answers`).

        Raises:
            ServingError: As for `chat`, and also when the answer has another form than asked for.
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
        """A successful response of an unknown form: another vLLM, or none."""
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError) as fault:
            raise ServingError(
                f"vLLM at {self.address} answered {path} in a form that is not known ({fault!r}). "
                "Is it another version of vLLM?"
            ) from fault

    def _check(self, response: httpx.Response) -> None:
        if not response.is_success:
            path = response.request.url.path
            text = response.text[:500]
            raise ServingError(
                f"vLLM at {self.address} answered {path} with HTTP {response.status_code}: {text}"
            )

    def _unreachable(self, fault: httpx.TransportError | OSError) -> ServingError:
        return VllmUnreachable(f"vLLM at {self.address} cannot be reached: {fault or type(fault).__name__}")


class VllmUnreachable(ServingError):
    """No connection, or it broke: the server may have gone, or another may have taken over."""
