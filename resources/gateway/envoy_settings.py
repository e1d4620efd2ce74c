"""What an operator decides about the gateway, as one frozen value, and the limits that protect it."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from resources.gateway.errors import GatewayError
from resources.shipped_files import GATEWAY_FILTER

MIB = 2**20
LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  listened at, not asked at
ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
"""As browsers write it, in lower case (RFC 6454, 6.2)."""


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """One gateway: where it listens, and what it lets a client do to it.

    Attributes:
        folder: Its journals, its `xds/`, its spool; absolute.
        host: The address it listens at; another than loopback needs a certificate.
        domain: Tenants are `<tenant>.llm.<domain>`.
        origins: Web pages that may ask from a browser (`https://app.example.com`), or `*` for all.
        metrics_port: Where this machine alone can read its metrics; None for nowhere.
        lua_folder: Where the filter's modules lie.
        max_body_bytes: Of a request, and of what is held of an answer; 413 beyond.
        request_headers_s: For the whole header block of a request.
        request_s: For a request with its body, so that nobody holds a connection by sending a byte a minute.
        answer_idle_s: How long a deployment may say nothing, or a client take nothing.
        unread_s: How long a client may leave what was sent to it untaken; it is disconnected then.
        refusals_recorded: Refused requests of a key, or without a valid one of an address, that have a record
            each in a minute; those beyond are counted.
        strangers_a_minute: Requests without a valid key, of one address in a minute; 429 beyond.
        retry_after_s: What a client is told to wait for where no deployment can answer.

    Raises:
        GatewayError: The values do not fit together.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int
    domain: str = "localhost"
    certificate: Path | None = None
    key: Path | None = None
    origins: tuple[str, ...] = ()
    metrics_port: int | None = None
    lua_folder: Path = GATEWAY_FILTER
    max_body_bytes: int = 8 * MIB
    max_header_kib: int = 32
    max_headers: int = 64
    max_connections: int = 10_000
    max_heap_bytes: int = 2048 * MIB
    request_headers_s: float = 10
    request_s: float = 60
    connection_idle_s: float = 300
    answer_idle_s: float = 900
    unread_s: int = 60
    refusals_recorded: int = 100
    strangers_a_minute: int = 1000
    retry_after_s: int = 2

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise GatewayError(
                "TLS needs a certificate and its key: set both LLM_ASSETS_GATEWAY_CERTIFICATE and "
                "LLM_ASSETS_GATEWAY_KEY, or neither."
            )
        for file in (self.certificate, self.key):
            if file is not None and not file.is_file():
                raise GatewayError(f"The gateway's PEM file {file} does not exist.")
        for origin in self.origins:
            if not ORIGIN.fullmatch(origin):
                raise GatewayError(
                    f"LLM_ASSETS_GATEWAY_ORIGINS: {origin!r} is not the origin of a web page; "
                    "https://app.example.com or http://localhost:5173 is (scheme, host and port, without a "
                    "path), several separated by commas, or * for all."
                )
        if self.certificate is None and not _is_loopback(self.host):
            raise GatewayError(
                f"The gateway does not listen at {self.host} without TLS: keys would go over the network in "
                "the clear. Set LLM_ASSETS_GATEWAY_CERTIFICATE and LLM_ASSETS_GATEWAY_KEY to PEM files, "
                "or leave LLM_ASSETS_GATEWAY_HOST at 127.0.0.1."
            )

    @property
    def held_bytes(self) -> int:
        """Of all requests' bodies at once; a tenant has a fourth of it, a key an eighth (`limits.lua`)."""
        return self.max_heap_bytes // 2

    @property
    def scheme(self) -> str:
        return "https" if self.certificate else "http"

    @property
    def url(self) -> str:
        """Where clients of this machine reach it."""
        host = LOOPBACK_OF.get(self.host, self.host)
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def clusters(self) -> Path:
        """Where the servers are; see `envoy_upstream`."""
        return self.folder / "xds" / "clusters.json"

    @property
    def jwt(self) -> Path:
        return self.folder / "xds" / "jwt.json"

    @property
    def secret(self) -> Path:
        """Where Envoy finds the certificate; see `envoy_tls`."""
        return self.folder / "xds" / "certificate.json"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise GatewayError(
            f"LLM_ASSETS_GATEWAY_HOST={host!r} is no IP address; 127.0.0.1 or 0.0.0.0 is."
        ) from None
