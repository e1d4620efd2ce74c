"""Where the gateway of this installation listens, and how it is asked for its health."""

import httpx

from llm_assets.settings import Settings
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
        metrics_port=settings.metrics_port,
    )


def health_client(settings: Settings) -> httpx.Client:
    """A client of the gateway, which asks over loopback where it listens there. Raises as above."""
    gateway = gateway_settings(settings)
    return httpx.Client(
        base_url=gateway.url, timeout=HEALTH_S, verify=trust(gateway.certificate), trust_env=False
    )
