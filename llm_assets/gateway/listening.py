"""Where the gateway of this installation listens, and how it is asked for its health."""

import httpx

from llm_assets.installation.settings import Settings
from resources.gateway.client import trust
from resources.gateway.envoy_settings import GatewaySettings

HEALTH_S = 2


def gateway_settings(settings: Settings) -> GatewaySettings:
    """Raises:
    GatewayError: The settings do not fit together.
    """
    return GatewaySettings(
        folder=settings.gateway,
        host=settings.gateway_host,
        port=settings.gateway_port,
        domain=settings.domain,
        certificate=settings.gateway_certificate,
        key=settings.gateway_key,
        origins=settings.gateway_origins,
        metrics_port=settings.metrics_port,
    )


class Health:
    """Asks the gateway how it is, over loopback where it listens there.

    A client is made anew after each fault: the certificate that it trusts may have been renewed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: httpx.Client | None = None

    def fault(self) -> str | None:
        """Why the gateway is not well; None where it is.

        Raises:
            GatewayError: The settings do not fit together.
            OSError: The certificate cannot be read.
        """
        self._client = self._client or self._new_client()
        try:
            answer = self._client.get("/healthz")
        except httpx.TransportError as error:
            self.close()
            return str(error) or type(error).__name__
        return None if answer.is_success else f"it answers {answer.status_code}"

    def close(self) -> None:
        if self._client:
            self._client.close()
        self._client = None

    def _new_client(self) -> httpx.Client:
        gateway = gateway_settings(self._settings)
        verify = trust(gateway.certificate)
        return httpx.Client(base_url=gateway.url, timeout=HEALTH_S, verify=verify, trust_env=False)
