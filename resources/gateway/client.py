"""A client of the gateway, for the platform's own command line. Applications take any OpenAI client."""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from resources.gateway.errors import GatewayError

CONNECT_S = 5
ANSWER_S = 900
RECEIPT = ("x-llm-version", "x-llm-digest", "x-llm-deployment", "x-request-id")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What answered: the version, its digest, the deployment, and the request's id for `llm-assets trace`."""

    version: str
    digest: str
    deployment: str
    request_id: str


@dataclass(frozen=True, kw_only=True)
class GatewayClient:
    """Asks at a tenant's address, such as `http://127.0.0.1:8080/t/team-a/v1`.

    `certificate` is the gateway's own, which is trusted whatever name it has; None where there is no TLS.
    """

    address: str
    key: str = field(repr=False)
    certificate: Path | None = None

    def ask(self, model: str, messages: list[dict[str, str]], **options: Any) -> tuple[str, Receipt]:
        """The whole answer and its receipt, whose digest is the server's own word. Options as for `stream`.

        Raises:
            GatewayError: The gateway refused, with its reason, or cannot be reached.
        """
        with self._asked(model, messages, options) as response:
            answer = json.loads(response.read())
            receipt = replace(_receipt(response.headers), digest=str(answer["system_fingerprint"]))
            return str(answer["choices"][0]["message"]["content"]), receipt

    def digest(self, model: str) -> str:
        """The digest that an answer of that model has, asked just now. Raises as `ask`."""
        _, receipt = self.ask(model, [{"role": "user", "content": "?"}], max_tokens=1)
        return receipt.digest

    def stream(self, model: str, messages: list[dict[str, str]], **options: Any) -> Iterator[str]:
        """The answer piece by piece.

        Args:
            affinity: Questions of equal affinity go to the same version.
            options: Those of an OpenAI chat completion (`max_tokens`, …).

        Raises:
            GatewayError: As `ask`, and also when the answer breaks off.
        """
        ended = False
        with self._asked(model, messages, {**options, "stream": True}) as response:
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:  # the status was 200 long before
                        raise GatewayError(f"The answer broke off: {event['error']['message']}")
                    yield from (choice["delta"].get("content") or "" for choice in event["choices"])
                    ended = ended or any(choice.get("finish_reason") for choice in event["choices"])
        if not ended:
            raise GatewayError(f"The answer of {self.address} broke off. Ask again.")

    @contextmanager
    def _asked(
        self, model: str, messages: list[dict[str, str]], options: Mapping[str, Any]
    ) -> Iterator[httpx.Response]:
        affinity = options.get("affinity")
        body = {name: value for name, value in options.items() if name != "affinity"}
        headers = {"authorization": f"Bearer {self.key}"} | ({"x-llm-affinity": affinity} if affinity else {})
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        try:
            with (
                httpx.Client(timeout=timeout, verify=trust(self.certificate), trust_env=False) as client,
                client.stream(
                    "POST",
                    f"{self.address}/chat/completions",
                    json={"model": model, "messages": messages, **body},
                    headers=headers,
                ) as response,
            ):
                if not response.is_success:
                    raise self._refusal(response.status_code, response.read())
                yield response
        except httpx.TransportError as fault:
            raise GatewayError(f"The gateway at {self.address} cannot be reached: {fault!r}") from fault

    def _refusal(self, status: int, body: bytes) -> GatewayError:
        try:
            why = json.loads(body)["error"]["message"]
        except (ValueError, LookupError, TypeError):
            why = body[:300].decode(errors="replace")
        return GatewayError(f"The gateway at {self.address} answered {status}: {why}")


def trust(certificate: Path | None) -> ssl.SSLContext | bool:
    """What httpx verifies the gateway by: its own certificate, whatever its name."""
    if certificate is None:
        return False  # no TLS, nothing to verify; loading certificates is most of a client's cost
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _receipt(headers: Mapping[str, str]) -> Receipt:
    version, digest, deployment, request_id = (headers.get(name, "") for name in RECEIPT)
    return Receipt(version=version, digest=digest, deployment=deployment, request_id=request_id)
