"""Which web pages may ask the gateway from a browser (CORS): none, unless the operator names their origins.

Envoy's own filter answers preflights and marks every other answer, refusals included, so that a page sees
why it was refused. Credentials of a browser (cookies, client certificates) are never allowed: a page sends
its key itself. Not covered: what Envoy refuses before it has read the headers (431, malformed HTTP).
"""

import re

from resources.gateway.envoy_settings import GatewaySettings
from resources.json_values import Json

FILTER = "envoy.filters.http.cors"
ANY_ORIGIN = "*"
METHODS = "GET, HEAD, POST"
HEADERS = "authorization, *"
"""The headers that a page may send. `*` stands for all but Authorization (Fetch standard, 4.8)."""
EXPOSED = (
    "x-request-id",
    "x-llm-model",
    "x-llm-version",
    "x-llm-digest",
    "x-llm-deployment",
    "retry-after",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
)
"""The headers that a page can read: the receipt, and when to ask again."""
MAX_AGE_S = 600


_TYPES = "type.googleapis.com/envoy.extensions.filters.http"


def cors_filters(settings: GatewaySettings) -> list[Json]:
    """In front of all others, so that what those refuse is marked too."""
    if not settings.origins:
        return []
    vary = {
        "append": {"header": {"key": "vary", "value": "origin"}, "append_action": "APPEND_IF_EXISTS_OR_ADD"}
    }
    mutation = {
        "@type": f"{_TYPES}.header_mutation.v3.HeaderMutation",
        "mutations": {"response_mutations": [vary]},
    }
    return [
        {"name": "envoy.filters.http.header_mutation", "typed_config": mutation},
        {"name": FILTER, "typed_config": {"@type": f"{_TYPES}.cors.v3.Cors"}},
    ]


def cors_policy(settings: GatewaySettings) -> Json:
    """What the virtual host says to the filter."""
    if not settings.origins:
        return {}
    policy = {
        "@type": f"{_TYPES}.cors.v3.CorsPolicy",
        "allow_origin_string_match": [_match(origin) for origin in settings.origins],
        "allow_methods": METHODS,
        "allow_headers": HEADERS,
        "expose_headers": ", ".join(EXPOSED),
        "max_age": str(MAX_AGE_S),
        "allow_credentials": False,
    }
    return {"typed_per_filter_config": {FILTER: policy}}


def _match(origin: str) -> Json:
    if origin == ANY_ORIGIN:
        return {"safe_regex": {"regex": ".*"}}
    return {"safe_regex": {"regex": re.escape(origin)}}
