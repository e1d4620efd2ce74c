"""OpenID Connect issuers as a tenant's file names them; checked, not asked."""

import re
from typing import Annotated

from pydantic import AfterValidator

from resources.gateway.addresses import address_fault

ISSUER_RULE = (
    "the token's iss, to the letter: https://… without query or fragment (http on this machine only)"
)
AUDIENCE_RULE = "the token's aud for this tenant alone: 1 to 256 characters without spaces"
JWKS_RULE = (
    "where the issuer's public keys are: https://… or file:<path>; OpenID Connect discovery if left out"
)
_SCOPES_CLAIM_RULE = (
    "1 to 128 of letters, digits and _ . : / -, such as scope, scp or https://example.com/scopes"
)
_AUDIENCE = re.compile(r"[^\s]{1,256}")
_SCOPES_CLAIM = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")


def check_issuer(issuer: str) -> str:
    """The issuer itself, if it can be one. Raises ValueError otherwise."""
    fault = address_fault(issuer) or ("it has a query or fragment" if re.search(r"[?#]", issuer) else None)
    if fault:
        raise ValueError(f"{issuer!r} is no issuer ({fault}); {ISSUER_RULE}")
    return issuer


def check_jwks(source: str) -> str:
    """The place itself, if keys can be fetched from it. Raises ValueError otherwise."""
    fault = None if source.startswith("file:") and source != "file:" else address_fault(source)
    if fault:
        raise ValueError(f"{source!r} is no place of keys ({fault}); {JWKS_RULE}")
    return source


def _check_audience(audience: str) -> str:
    if not _AUDIENCE.fullmatch(audience):
        raise ValueError(f"{audience!r} is no audience; {AUDIENCE_RULE}")
    return audience


def _check_scopes_claim(claim: str) -> str:
    if not _SCOPES_CLAIM.fullmatch(claim):
        raise ValueError(f"{claim!r} is no claim; {_SCOPES_CLAIM_RULE}")
    return claim


Issuer = Annotated[str, AfterValidator(check_issuer)]
Audience = Annotated[str, AfterValidator(_check_audience)]
Jwks = Annotated[str, AfterValidator(check_jwks)]
ScopesClaim = Annotated[str, AfterValidator(_check_scopes_claim)]
