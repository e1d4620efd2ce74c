"""The one error class of the gateway."""


class GatewayError(Exception):
    """The gateway, its files, its keys or a token issuer's keys cannot be used as asked."""
