"""The public keys of token issuers: fetched, cleaned, and kept for as long as an issuer does not answer.

What an issuer says is a stranger's word: its size and the time it may take are bounded, a redirect never
leads from HTTPS to plain HTTP, and of its keys only public RSA keys (2048 to 8192 bits) and EC keys (P-256,
P-384, P-521) that sign are handed on, field by field. A symmetric key (`oct`) would let whoever knows it, or
takes a public key for it, sign tokens.

https://openid.net/specs/openid-connect-discovery-1_0.html, RFC 7517, RFC 8725
"""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from resources.gateway.addresses import address_fault
from resources.gateway.errors import GatewayError
from resources.gateway.jwt_filter import Issuer, KeySet

DISCOVERY = "/.well-known/openid-configuration"
MOST_BYTES = 256 * 1024
MOST_KEYS = 64
FETCH_S = 10
REDIRECTS = 3
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
RSA_BITS = range(2048, 8193)
CURVES = ("P-256", "P-384", "P-521")
_HEADERS = {"accept": "application/json", "accept-encoding": "identity"}
_FIELDS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y")}


def fetch_key_set(issuer: Issuer) -> KeySet:
    """The issuer's keys as they are now.

    Raises:
        GatewayError: It does not answer in time, or what it says is not a set with a usable key.
    """
    if issuer.key_source and issuer.key_source.startswith("file:"):
        return cleaned_key_set(_file(issuer), of=issuer.name)
    address = issuer.key_source or _discovered(issuer.name)
    return cleaned_key_set(_fetched(address, of=issuer.name), of=issuer.name)


def cleaned_key_set(content: bytes, *, of: str) -> KeySet:
    """The keys of a set that may prove a signature, without anything else that stood there.

    Raises:
        GatewayError: There is none.
    """
    listed = _object(content, of).get("keys")
    if not isinstance(listed, list):
        raise GatewayError(f"The key set of the issuer {of} has no list `keys`. Ask whoever runs it.")
    usable = [key for each in listed[:MOST_KEYS] if (key := _usable(each)) is not None]
    if not usable:
        raise GatewayError(
            f"None of the {len(listed)} keys of the issuer {of} can prove a signature: RSA from "
            f"{RSA_BITS[0]} bits, or EC on {', '.join(CURVES)}, is needed. Ask whoever runs it."
        )
    return {"keys": usable}


def _usable(key: Any) -> dict[str, str] | None:
    """The public fields of a key that signs; None for any other."""
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, RSAKey

    kinds: Mapping[str, type[ECKey] | type[RSAKey]] = {"RSA": RSAKey, "EC": ECKey}
    kind = kinds.get(str(key.get("kty"))) if isinstance(key, dict) else None
    if kind is None or key.get("use", "sig") != "sig" or key.get("alg", "RS256") not in ALGORITHMS:
        return None
    if kind is RSAKey and _bits(key.get("n")) not in RSA_BITS:
        return None
    public: dict[str, Any] = dict(_strings(key, ("kty", "kid", "use", "alg", *_FIELDS[key["kty"]])))
    try:
        known = kind.import_key(public)
    except (JoseError, ValueError, KeyError):
        return None
    return None if isinstance(known, ECKey) and known.curve_name not in CURVES else public


def _bits(modulus: Any) -> int:
    """How long an RSA key is; 0 for none."""
    try:
        return int.from_bytes(base64.urlsafe_b64decode(f"{modulus}==")).bit_length()
    except ValueError:
        return 0


def _strings(key: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name in names:
        if isinstance(key.get(name), str):
            yield name, key[name]


def _discovered(issuer: str) -> str:
    """Where the issuer says that its keys are."""
    address = issuer.rstrip("/") + DISCOVERY
    said = _object(_fetched(address, of=issuer), issuer)
    if said.get("issuer") != issuer:  # OpenID Connect Discovery 1.0, 4.3
        raise GatewayError(
            f"{address} speaks for the issuer {said.get('issuer')!r}, not {issuer!r}. Write the issuer in "
            "the tenant's file exactly as its tokens have it."
        )
    keys = said.get("jwks_uri")
    fault = address_fault(keys) if isinstance(keys, str) else "no address"
    if not isinstance(keys, str) or fault:
        raise GatewayError(f"{address} names {keys!r} as the place of its keys ({fault}).")
    return keys


def _object(content: bytes, of: str) -> dict[str, Any]:
    try:
        said = json.loads(content)
    except (ValueError, RecursionError) as fault:
        raise GatewayError(f"What the issuer {of} says is no JSON: {fault}. Ask whoever runs it.") from fault
    if not isinstance(said, dict):
        raise GatewayError(f"What the issuer {of} says is no JSON object. Ask whoever runs it.")
    return said


def _file(issuer: Issuer) -> bytes:
    path = Path((issuer.key_source or "").removeprefix("file:"))
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as fault:
        raise GatewayError(
            f"The key set {path} of the issuer {issuer.name} cannot be read: {fault.strerror}. Correct "
            "`jwt.jwks` in the tenant's file."
        ) from fault
    return _bounded(content, f"the file {path}")


def _fetched(address: str, *, of: str) -> bytes:
    deadline = time.monotonic() + FETCH_S
    try:
        with httpx.Client(timeout=FETCH_S / 2, headers=_HEADERS) as client:
            for _ in range(REDIRECTS + 1):
                content, further = _answer(client, address, deadline)
                if further is None:
                    return content
                fault = address_fault(further)
                if fault or (address.startswith("https:") and not further.startswith("https:")):
                    raise GatewayError(f"{address} leads on to {further!r} ({fault or 'not https'}).")
                address = further
    except httpx.HTTPError as fault:
        raise GatewayError(
            f"The issuer {of} does not answer at {address}: {fault or type(fault).__name__}."
        ) from fault
    raise GatewayError(f"The issuer {of} redirects more than {REDIRECTS} times, to {address} at last.")


def _answer(client: httpx.Client, address: str, deadline: float) -> tuple[bytes, str | None]:
    """What stands there, or the address that it leads on to."""
    with client.stream("GET", address) as response:
        if response.next_request is not None:
            return b"", str(response.next_request.url)
        if response.status_code != httpx.codes.OK:
            raise GatewayError(f"{address} answers {response.status_code}, not a set of keys.")
        content = b""
        for piece in response.iter_raw():
            content = _bounded(content + piece, address)
            if time.monotonic() > deadline:
                raise GatewayError(f"{address} takes longer than {FETCH_S} s to answer.")
        return content, None


def _bounded(content: bytes, where: str) -> bytes:
    if len(content) > MOST_BYTES:
        raise GatewayError(f"{where} holds more than {MOST_BYTES:,} bytes, which is no set of keys.")
    return content
