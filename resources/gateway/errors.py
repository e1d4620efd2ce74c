"""The one error class of the gateway."""

from resources.errors import LlmAssetsError


class GatewayError(LlmAssetsError):
    """The gateway, its files, its keys or a token issuer's keys cannot be used as asked."""
