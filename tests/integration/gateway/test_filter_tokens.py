"""Tokens (JWT): Envoy checks the signature, the filter whose they are and what they may ask."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from tests.integration.gateway.conftest import prepared, started
from tests.integration.gateway.gateways import (
    CHAT,
    Gateway,
    backend,
    error_of,
    jwt_filter,
    new_key,
    question,
    route,
    tenant,
)

ISSUER, OTHER = "https://login.example", "https://other.example"
AUDIENCE = "llm"
SIGNER, STRANGER = (RSAKey.generate_key(2048, {"kid": kid}) for kid in ("one", "two"))


def provider(issuer: str) -> dict[str, Any]:
    keys = json.dumps(KeySet([SIGNER]).as_dict(private=False))
    return {
        "issuer": issuer,
        "local_jwks": {"inline_string": keys},
        "payload_in_metadata": issuer,
        "forward": True,
    }


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, backends: dict[str, int]) -> Iterator[Gateway]:
    home = prepared(tmp_path_factory.mktemp("tokens"))
    before = (jwt_filter({"one": provider(ISSUER), "two": provider(OTHER)}),)
    with started(home, backends, before=before) as running:
        models = {"support_bot": "limited", "screening": "high"}
        for name, issuer in (("signed", ISSUER), ("others", OTHER)):
            known = {"issuer": issuer, "audience": AUDIENCE, "scopes_claim": "scope", "provider": issuer}
            running.append("tenants", tenant(name, models, jwt=known))
            running.append("routes", *(route(name, model, backend("d1")) for model in models))
        yield running


def token(key: RSAKey = SIGNER, **claims: Any) -> str:
    usual = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "exp": int(time.time()) + 60,
        "scope": "model:* risk:*",
    }
    given = {name: value for name, value in (usual | claims).items() if value is not None}
    return jwt.encode({"alg": "RS256", "kid": "one"}, given, key)


def ask(gateway: Gateway, bearer: str, path: str = "/t/signed/v1/chat/completions", **body: Any) -> Any:
    return gateway.ask(bearer, path=path, **body)


def test_a_token_of_the_tenant_s_issuer_is_let_in_and_its_subject_is_the_actor(tokens: Gateway) -> None:
    answer = ask(tokens, token(sub="grace"))
    assert answer.status_code == 200, answer.text
    request = tokens.record("request", answer.headers["x-request-id"])
    assert (request["via"], request["key"], request["actor"], request["subject"]) == (
        "jwt",
        None,
        "grace",
        "grace",
    )
    assert "eyJ" not in json.dumps(tokens.seen()[-1])


@pytest.mark.parametrize("audience", [AUDIENCE, ["another", AUDIENCE]])
def test_an_audience_may_be_one_of_several(tokens: Gateway, audience: Any) -> None:
    assert ask(tokens, token(aud=audience)).status_code == 200


WRONG: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "another"},
    "no audience": {"aud": None},
    "no end": {"exp": None},
    "an end in the past": {"exp": 1_000_000_000},
    "a beginning in the future": {"nbf": 4_000_000_000},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "another tenant's issuer": {"iss": OTHER},
    "an unknown issuer": {"iss": "https://evil.example"},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_token_that_does_not_fit_is_refused_as_a_wrong_key_is(tokens: Gateway, case: str) -> None:
    answer = ask(tokens, token(**WRONG[case]))
    assert error_of(answer) == (401, "invalid_api_key")
    assert answer.json() == ask(tokens, new_key()).json()
    assert tokens.record("denied", answer.headers["x-request-id"])["status"] == 401


def test_a_token_is_good_at_no_other_door(tokens: Gateway) -> None:
    for name in ("others", "team-a", "nobody"):
        answer = ask(tokens, token(), path=f"/t/{name}/v1/chat/completions")
        assert error_of(answer) == (401, "invalid_api_key"), name
    assert ask(tokens, token(iss=OTHER), path="/t/others/v1/chat/completions").status_code == 200


def test_a_forged_token_is_refused(tokens: Gateway) -> None:
    head, payload, signature = token().split(".")
    none = "eyJhbGciOiJub25lIn0"
    for forged in (
        token(STRANGER),
        f"{none}.{payload}.",
        f"{head}.{payload}.{signature[:-4]}AAAA",
        "eyJ",
        "ey.ey.ey",
    ):
        assert error_of(ask(tokens, forged)) == (401, "invalid_api_key"), forged


@pytest.mark.parametrize(
    ("scope", "model", "status"),
    [
        ("model:support_bot risk:limited", "support_bot", 200),
        ("model:* risk:*", "screening", 200),
        (["model:screening", "risk:high"], "screening", 200),
        ("model:support_bot risk:limited", "screening", 403),
        ("model:* risk:limited", "screening", 403),
        ("model:support_bot", "support_bot", 403),
        ("risk:limited", "support_bot", 403),
        ("", "support_bot", 403),
        (None, "support_bot", 403),
        ("openid profile", "support_bot", 403),
        ({"model": "*"}, "support_bot", 403),
        (7, "support_bot", 403),
    ],
)
def test_scopes_say_what_a_token_may_ask(tokens: Gateway, scope: Any, model: str, status: int) -> None:
    assert ask(tokens, token(scope=scope), model=model).status_code == status


def test_a_token_and_a_key_together_are_refused(tokens: Gateway) -> None:
    both = [("authorization", f"Bearer {token()}"), ("authorization", f"Bearer {tokens.key('signed')}")]
    spaced = [("authorization", f"Bearer {token()} {tokens.key('signed')}")]
    for headers in (both, both[::-1], spaced):
        answer = tokens.client.post("/t/signed/v1/chat/completions", json=question(), headers=headers)
        assert error_of(answer) == (401, "invalid_api_key")


def test_keys_are_good_beside_tokens(tokens: Gateway) -> None:
    assert ask(tokens, tokens.key("signed")).status_code == 200
    assert tokens.ask(tokens.key(), path=CHAT).status_code == 200
