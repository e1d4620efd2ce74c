"""What Envoy's own filter checks JSON Web Tokens by, as a pure function of issuers and their keys.

Envoy follows the file (extension config discovery), so that new keys and new issuers count without a restart.
Envoy proves the signature, issuer, expiry and that the audience is one of the issuer's; which tenant the
token is good for, and for which models, is decided by the Lua filter behind it from the token's claims. A
token that no provider here answers for never gets that far, and one that was not checked has no claims.

https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/filters/http/jwt_authn/v3/config.proto
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.durable_files import replace_json
from resources.gateway.envoy_http import jwt_discovery

CLOCK_SKEW_S = 10
BEARER_TOKEN = "(?i:bearer) +ey.*"  # noqa: S105  the beginning of every JSON Web Token: base64url of `{"`

KeySet = Mapping[str, Any]
"""A JSON Web Key Set as RFC 7517 has it: `{"keys": […]}`."""

_FILTER = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """Whose tokens count. `key_source` is where its keys are; None where discovery says so."""

    name: str
    audiences: tuple[str, ...]
    key_source: str | None = None

    @property
    def provider(self) -> str:
        """Names the issuer together with where its keys come from."""
        told = json.dumps([self.name, self.key_source])
        return f"issuer-{hashlib.sha256(told.encode()).hexdigest()[:24]}"


def jwt_filter(issuers: Iterable[Issuer], key_sets: Mapping[str, KeySet]) -> dict[str, Any]:
    """The discovery response. `key_sets` is by `Issuer.provider`; an issuer without keys is not in it.

    One issuer is one provider, found by the token's `iss` in a hash table however many there are.
    """
    known = [issuer for issuer in issuers if issuer.provider in key_sets]
    config = {
        "@type": _FILTER,
        "providers": {issuer.provider: _provider(issuer, key_sets[issuer.provider]) for issuer in known},
        "rules": [_rule()],
    }
    return jwt_discovery(config, hashlib.sha256(json.dumps(config).encode()).hexdigest()[:16])


def _provider(issuer: Issuer, keys: KeySet) -> dict[str, Any]:
    """The claims of a token that was checked are, by the provider's name, in the request's metadata."""
    return {
        "issuer": issuer.name,
        "audiences": list(issuer.audiences),
        "local_jwks": {"inline_string": json.dumps(keys, separators=(",", ":"))},
        # What follows the first space: a scheme has no case, Envoy's prefix has.
        "from_headers": [{"name": "Authorization", "value_prefix": " "}],
        "forward": True,  # the Lua filter replaces it by vLLM's own key
        "payload_in_metadata": issuer.provider,  # so the filter sees whose keys have proved the claims
        "require_expiration": True,
        "clock_skew_seconds": CLOCK_SKEW_S,
    }


def _rule() -> dict[str, Any]:
    """Every request with a token. `allow_missing` makes Envoy find the provider by the token's issuer."""
    header = {"name": "authorization", "string_match": {"safe_regex": {"regex": BEARER_TOKEN}}}
    return {"match": {"prefix": "/", "headers": [header]}, "requires": {"allow_missing": {}}}


def write_jwt_filter(path: Path, response: Mapping[str, Any]) -> bool:
    """Replaces the file where it says something else; whether it did. Envoy takes it by the rename."""
    if path.is_file() and json.loads(path.read_text()) == response:
        return False
    replace_json(path, response)
    return True


def read_key_sets(path: Path) -> dict[str, KeySet]:
    """The keys that the file holds, by `Issuer.provider`: the last that were good, after a restart."""
    try:
        response = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    providers = response["resources"][0]["typed_config"].get("providers", {})  # none at first
    return {name: json.loads(each["local_jwks"]["inline_string"]) for name, each in providers.items()}
