"""Envoy's admin interface, on a unix socket that only the gateway's owner can open."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from resources.gateway.envoy_config import ADMIN_SOCKET
from resources.gateway.errors import GatewayError
from resources.processes.unix_sockets import short_address

TIMEOUT_S = 5
_VERSION = "cluster_manager.cds.version_text"


@dataclass(frozen=True, kw_only=True)
class EnvoyAdmin:
    """The admin interface of the Envoy whose folder that is."""

    folder: Path

    def ready(self) -> bool:
        """Whether it has its configuration and takes requests."""
        try:
            return self._request("GET", "/ready").text.strip() == "LIVE"
        except GatewayError:
            return False

    def clusters_version(self) -> str:
        """The version of `xds/clusters.json` that Envoy routes by; "" while it has none.

        Raises:
            GatewayError: Envoy does not answer.
        """
        _, _, version = self.read(f"/stats?filter=^{_VERSION}$").strip().partition(": ")
        return version.strip('"')

    def read(self, path: str) -> str:
        """Raises:
        GatewayError: Envoy does not answer, or refuses.
        """
        return self._request("GET", path).text

    def order(self, path: str) -> None:
        """As `read`, for what changes something."""
        self._request("POST", path)

    def _request(self, method: str, path: str) -> httpx.Response:
        try:
            with self._client() as client:
                return client.request(method, f"http://admin{path}").raise_for_status()
        except (httpx.HTTPError, OSError) as fault:
            raise GatewayError(
                f"The gateway's Envoy does not answer at {self.folder / ADMIN_SOCKET}: {fault!r}. "
                f"Its log is {self.folder / 'envoy.log'}."
            ) from fault

    @contextmanager
    def _client(self) -> Iterator[httpx.Client]:
        with short_address(self.folder / ADMIN_SOCKET) as address:
            transport = httpx.HTTPTransport(uds=address)
            with httpx.Client(transport=transport, timeout=TIMEOUT_S) as client:
                yield client
