"""Asks the gateway of this installation how it is, over loopback or where it listens."""

import ssl

import httpx

from llm_assets.settings import Settings

HEALTH_S = 2
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  listened at, not asked at


def health_client(settings: Settings) -> httpx.Client:
    """A client of the gateway. With TLS it trusts the gateway's own certificate, whatever its name."""
    host = settings.gateway_host
    scheme = "https" if settings.gateway_certificate else "http"
    address = f"{scheme}://{_EVERYWHERE.get(host, host)}:{settings.gateway_port}"
    return httpx.Client(base_url=address, timeout=HEALTH_S, verify=_trust(settings), trust_env=False)


def _trust(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if settings.gateway_certificate:
        context = ssl.create_default_context(cafile=str(settings.gateway_certificate))
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
