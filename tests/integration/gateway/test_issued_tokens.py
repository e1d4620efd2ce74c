"""JSON Web Tokens at the whole gateway: what an issuer signed counts, and no trick does."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from llm_assets.gateway.tenants import issuer_of, issuers_of, tenant_lines
from resources.gateway.jwt_filter import jwt_filter, write_jwt_filter
from resources.gateway.key_sets import fetch_key_set
from tests.integration.gateway.gateways import error_of, question
from tests.integration.gateway.gateways import tenant as tenant_line
from tests.integration.gateway.whole_gateways import Deployment, WholeGateway, whole_gateway
from tests.servers.oidc_issuer import KEYS, Issuer, hand_signed, issuing

MODELS = {"support_bot": "limited", "screening": "high"}
ALL = "model:* risk:*"


class Tokens:
    """A gateway with two tenants of one issuer and one of another."""

    def __init__(self, gateway: WholeGateway, issuer: Issuer, other: Issuer) -> None:
        self.gateway, self.issuer, self.other = gateway, issuer, other
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", timeout=10)
        tenants = {"team-a": issuer, "team-b": issuer, "team-c": other}
        for name, server in tenants.items():
            told = {"issuer": server.name, "audience": name, "scopes_claim": "scope", "jwks": None}
            told["provider"] = issuer_of(told, Path()).provider
            gateway.tenants.append(tenant_line(name, MODELS, jwt=told))
        gateway.tenants.append(tenant_line("team-d", MODELS))
        self.refresh()
        self.wait_for(issuer.token(aud="team-a", scope=ALL))

    def refresh(self) -> None:
        """As the keeper does."""
        issuers = issuers_of(tenant_lines(self.gateway.tenants), Path())
        keys = {each.provider: fetch_key_set(each) for each in issuers}
        write_jwt_filter(self.gateway.jwt_file, jwt_filter(issuers, keys))

    def wait_for(self, token: str) -> None:
        """Envoy takes a new file in its own time, which is milliseconds."""
        deadline = time.monotonic() + 10
        while self.ask(token).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def ask(self, *tokens: str, tenant: str = "team-a", **body: Any) -> httpx.Response:
        headers = [("authorization", f"Bearer {token}") for token in tokens]
        return self.client.post(f"/t/{tenant}/v1/chat/completions", json=question(**body), headers=headers)

    def refused(self, *tokens: str, tenant: str = "team-a") -> tuple[int, str]:
        return error_of(self.ask(*tokens, tenant=tenant))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokens]:
    live = [Deployment(tenant=f"team-{each}", model=model) for each in "abcd" for model in MODELS]
    home = tmp_path_factory.mktemp("tokens")
    with issuing() as issuer, issuing() as other, whole_gateway(home, live) as gateway:
        tokens = Tokens(gateway, issuer, other)
        yield tokens
        tokens.client.close()


UNKNOWN = (401, "invalid_api_key")


def test_a_token_asks_its_tenants_models_and_the_record_names_its_subject(tokens: Tokens) -> None:
    answer = tokens.ask(tokens.issuer.token(aud="team-a", scope=ALL, sub="ada"))
    assert answer.headers["x-llm-deployment"] == "team-a--support_bot--v1"
    lines = [
        line for file in (tokens.gateway.folder / "spool").iterdir() for line in file.read_text().split("\n")
    ]
    records = [json.loads(line) for line in lines if line]
    (record,) = [
        each for each in records if each["id"] == answer.headers["x-request-id"] and each["e"] == "request"
    ]
    assert (record["via"], record["actor"], record["key"]) == ("jwt", "ada", None)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": int(time.time()) - 60}, "expired"),
        ({"exp": None}, "without an end"),
        ({"nbf": int(time.time()) + 3600}, "not valid yet"),
        ({"aud": "team-b"}, "for another tenant of the same issuer"),
        ({"aud": ["team-b", "team-c"]}, "for others"),
        ({"aud": None}, "for nobody"),
        ({"aud": "somebody else"}, "for somebody unknown"),
        ({"iss": "https://unknown.example.com"}, "of an unknown issuer"),
        ({"iss": None}, "of no issuer"),
        ({"sub": None}, "about nobody"),
    ],
)
def test_a_token_whose_claims_do_not_fit_is_refused(tokens: Tokens, claims: dict[str, Any], why: str) -> None:
    token = tokens.issuer.token(**{"aud": "team-a", "scope": ALL, **claims})
    assert tokens.refused(token) == UNKNOWN, why


def test_a_token_for_several_tenants_is_good_at_the_door_of_each(tokens: Tokens) -> None:
    token = tokens.issuer.token(aud=["team-a", "team-b"], scope=ALL)
    for tenant in ("team-a", "team-b"):
        assert tokens.ask(token, tenant=tenant).headers["x-llm-deployment"].startswith(tenant)
    assert tokens.refused(token, tenant="team-c") == UNKNOWN


def test_the_issuer_of_one_tenant_signs_for_no_other(tokens: Tokens) -> None:
    assert tokens.ask(tokens.other.token(aud="team-c", scope=ALL), tenant="team-c").status_code == 200
    for claims in (
        {"aud": "team-a"},
        {"aud": "team-a", "iss": tokens.issuer.name},
        {"aud": ["team-a", "team-c"]},
    ):
        assert tokens.refused(tokens.other.token(scope=ALL, **claims)) == UNKNOWN


def test_a_tenant_without_an_issuer_takes_no_token(tokens: Tokens) -> None:
    assert (
        tokens.refused(tokens.issuer.token(aud=["team-a", "team-d"], scope=ALL), tenant="team-d") == UNKNOWN
    )


def test_a_signature_of_another_key_or_over_other_claims_is_refused(tokens: Tokens) -> None:
    good = tokens.issuer.token(aud="team-a", scope=ALL)
    stranger = RSAKey.generate_key(2048, {"kid": str(tokens.issuer.key.kid)})
    head, claims, signature = good.split(".")
    _, other_claims, _ = tokens.issuer.token(aud="team-a", scope=ALL, sub="eve").split(".")
    for forged in (
        tokens.issuer.token(aud="team-a", scope=ALL, key=stranger),
        f"{head}.{other_claims}.{signature}",
        f"{head}.{claims}.",
        f"{head}.{claims}",
        f"{head}.{claims}.{signature[:-8]}AAAAAAAA",
        f"{head}..{signature}",
        "ey",
        "eyJ9.e30.e30",
    ):
        assert tokens.refused(forged) == UNKNOWN


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "HS256", "HS384", "HS512", "RS256", "", None]
)
def test_a_token_that_no_private_key_signed_is_refused_whatever_it_says_of_itself(
    tokens: Tokens, alg: str | None
) -> None:
    public = tokens.issuer.key
    claims = {
        "iss": tokens.issuer.name,
        "aud": "team-a",
        "sub": "eve",
        "scope": ALL,
        "exp": int(time.time()) + 60,
    }
    secrets = (None, b"", public.as_pem(private=False), json.dumps(public.as_dict(private=False)).encode())
    for secret in (*secrets, public.as_pem(private=False).strip(), str(public.get("n")).encode()):
        for kid in ({}, {"kid": public.kid}):
            assert tokens.refused(hand_signed({"alg": alg, **kid}, claims, secret)) == UNKNOWN


def test_a_kid_chooses_only_among_the_issuers_own_keys(tokens: Tokens) -> None:
    stranger = RSAKey.generate_key(2048)
    tricks: list[dict[str, Any]] = [
        {"kid": "../../../../dev/null"},
        {"kid": "' or 1=1 --"},
        {"kid": ""},
        {"kid": "unknown"},
        {"kid": "unknown", "jwk": stranger.as_dict(private=False)},
        {"jku": f"{tokens.other.name}{KEYS}"},
        {"x5u": f"{tokens.other.name}{KEYS}"},
    ]
    asked = len(tokens.other.asked)
    for header in tricks:
        forged = tokens.issuer.token(aud="team-a", scope=ALL, key=stranger, header=header)
        assert tokens.refused(forged) == UNKNOWN
    assert len(tokens.other.asked) == asked, "the gateway fetches nothing that a token names"


def test_a_symmetric_key_in_the_issuers_set_signs_nothing(tokens: Tokens) -> None:
    secret = OctKey.generate_key(256, {"kid": "oct"})
    tokens.issuer.publish(tokens.issuer.key, also=(secret.as_dict(private=True),))
    tokens.refresh()
    claims = {
        "iss": tokens.issuer.name,
        "aud": "team-a",
        "sub": "eve",
        "scope": ALL,
        "exp": int(time.time()) + 60,
    }
    token = hand_signed({"alg": "HS256", "kid": "oct"}, claims, secret.raw_value)
    for _ in range(10):
        assert tokens.refused(token) == UNKNOWN
        time.sleep(0.02)
    assert tokens.ask(tokens.issuer.token(aud="team-a", scope=ALL)).status_code == 200


def test_two_credentials_at_once_are_refused_whichever_comes_first(tokens: Tokens) -> None:
    good, bad = tokens.issuer.token(aud="team-a", scope=ALL), tokens.other.token(aud="team-a", scope=ALL)
    for pair in ((good, bad), (bad, good), (good, good), (good, "llma_x"), ("llma_x", good)):
        assert tokens.refused(*pair)[0] in (400, 401)


def test_a_token_anywhere_but_in_the_header_is_no_credential(tokens: Tokens) -> None:
    token = tokens.issuer.token(aud="team-a", scope=ALL)
    path = "/t/team-a/v1/chat/completions"
    for query in (f"?access_token={token}", f"?api_key={token}", ""):
        answer = tokens.client.post(
            path + query, json=question(), headers={"cookie": f"access_token={token}"}
        )
        assert error_of(answer) == UNKNOWN
    for spelled in (f"Basic {token}", f"Token {token}", f"Bearer {token} {token}", f"Bearer x{token}", token):
        answer = tokens.client.post(path, json=question(), headers={"authorization": spelled})
        assert error_of(answer) == UNKNOWN


@pytest.mark.parametrize("scheme", ["bearer ", "BEARER ", "bEaReR ", "Bearer  ", "bearer   "])
def test_the_scheme_of_a_token_has_no_case_and_a_bad_token_stays_one(tokens: Tokens, scheme: str) -> None:
    path, token = "/t/team-a/v1/chat/completions", tokens.issuer.token(aud="team-a", scope=ALL)
    expired = tokens.issuer.token(aud="team-a", scope=ALL, exp=int(time.time()) - 60)
    for each, status in ((token, 200), (expired, 401), (f"{token[:-4]}AAAA", 401)):
        answer = tokens.client.post(path, json=question(), headers={"authorization": f"{scheme}{each}"})
        assert answer.status_code == status, answer.text


def test_a_huge_token_is_answered_and_the_next_one_too(tokens: Tokens) -> None:
    for size in (8_000, 40_000, 200_000):
        token = tokens.issuer.token(aud="team-a", scope=ALL, filler="x" * size)
        try:
            assert tokens.ask(token).status_code in (200, 400, 401, 431)
        except httpx.RemoteProtocolError:  # it was hung up on; more than any header may be
            assert size > 32 * 1024
    assert tokens.ask(tokens.issuer.token(aud="team-a", scope=ALL)).status_code == 200


@pytest.mark.parametrize(
    ("scope", "support_bot", "screening"),
    [
        (ALL, 200, 200),
        ("model:support_bot risk:limited", 200, 403),
        ("model:* risk:limited", 200, 403),
        ("openid model:screening risk:* email", 403, 200),
        (["model:support_bot", "risk:*"], 200, 403),
        (["openid model:*", "risk:*"], 403, 403),
        ([["model:*", "risk:*"]], 403, 403),
        ("model:support_bot", 403, 403),
        ("risk:*", 403, 403),
        ("", 403, 403),
        (None, 403, 403),
        (7, 403, 403),
        ({"model:*": "risk:*"}, 403, 403),
        ("model:support_bot_2 risk:*", 403, 403),
        ("model:sup* risk:*", 403, 403),
        ("MODEL:* RISK:*", 403, 403),
        ("read-model:* read-risk:*", 403, 403),
        ("https://api.example.com/model:* urn:risk:*", 403, 403),
    ],
)
def test_scopes_say_which_models_and_risk_classes(
    tokens: Tokens, scope: Any, support_bot: int, screening: int
) -> None:
    token = tokens.issuer.token(aud="team-a", scope=scope)
    assert tokens.ask(token).status_code == support_bot
    assert tokens.ask(token, model="screening").status_code == screening


def test_a_key_that_the_issuer_has_replaced_stops_counting_and_the_new_one_counts(tokens: Tokens) -> None:
    old = tokens.issuer.token(aud="team-a", scope=ALL)
    new = ECKey.generate_key("P-256", {"kid": "second"})
    tokens.issuer.publish(tokens.issuer.key, new)
    tokens.refresh()
    rotated = tokens.issuer.token(aud="team-a", scope=ALL, key=new, alg="ES256")
    tokens.wait_for(rotated)
    assert tokens.ask(old).status_code == 200
    tokens.issuer.publish(new)
    tokens.refresh()
    deadline = time.monotonic() + 10
    while tokens.ask(old).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert tokens.refused(old) == UNKNOWN
    assert tokens.ask(rotated).status_code == 200
    tokens.issuer.publish(tokens.issuer.key)
    tokens.refresh()
    tokens.wait_for(old)
