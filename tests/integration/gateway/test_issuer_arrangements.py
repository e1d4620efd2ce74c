"""Whose issuer is whose, in made-up arrangements of tenants, issuers and key sets: no token crosses."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import RSAKey

from llm_assets.gateway.tenants import issuer_of, issuers_in_force, issuers_of, tenant_lines
from resources.gateway.jwt_filter import jwt_filter, write_jwt_filter
from resources.gateway.key_sets import fetch_key_set
from resources.waiting import wait_until
from tests.integration.gateway.gateways import tenant as tenant_line
from tests.integration.gateway.whole_gateways import Deployment, WholeGateway, whole_gateway
from tests.unit.gateway.test_catalog_changes import MODEL, TENANT, Followed

TENANTS = ("team-a", "team-b", "team-c")
ISSUERS = ("https://one.example.com", "https://two.example.com")
AUDIENCES = ("x", "y")
SETS = ("first", "second")


class Claim(NamedTuple):
    """What a tenant's file says of its issuer."""

    issuer: str
    audience: str
    keys: str
    shared: bool = False

    def in_yaml(self) -> str:
        said = f"issuer: '{self.issuer}', audience: {self.audience}, jwks: 'file:{self.keys}'"
        return f"{TENANT}jwt: {{{said}, shared: {str(self.shared).lower()}}}\n"


CLAIMS = [Claim(issuer, audience, keys) for issuer in ISSUERS for audience in AUDIENCES for keys in SETS]
SAID = [claim._replace(shared=shared) for claim in CLAIMS for shared in (False, True)]

Step = tuple[str, str, Claim | None]
STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(TENANTS), st.sampled_from([None, *SAID])),
    st.tuples(st.sampled_from(["break", "remove"]), st.sampled_from(TENANTS), st.none()),
    st.tuples(st.sampled_from(["begin anew", "change all", "break all"]), st.just(""), st.none()),
)
# What changes between two looks, and how often is looked.
ARRANGEMENTS = st.lists(st.lists(STEPS, min_size=1, max_size=4), min_size=1, max_size=5)


class Arranged:
    """A catalog, who follows it, and what the files say."""

    def __init__(self, folder: Path) -> None:
        self.followed = Followed(folder)
        for name in ("team-a", "team-b"):
            (self.followed.folder / "tenants" / f"{name}.yaml").unlink()
        self.files: dict[str, Claim | str | None] = {}
        self.models_broken = False
        self.models_changed = 0

    def take(self, step: Step) -> None:
        what, name, claim = step
        match what:
            case "write":
                self.files[name] = claim
                self.followed.write(f"tenants/{name}", claim.in_yaml() if claim else TENANT)
            case "break":
                self.files[name] = "broken"
                self.followed.write(f"tenants/{name}", "owner: [")
            case "remove":
                if self.files.pop(name, "none") != "none":
                    (self.followed.folder / "tenants" / f"{name}.yaml").unlink()
            case "begin anew":
                self.followed.start_again()
            case _:
                self.models_broken = what == "break all"
                self.models_changed += 1
                text = "owner: [" if self.models_broken else f"{MODEL}# {self.models_changed}\n"
                self.followed.write("models/support_bot", text)

    def in_force(self) -> dict[str, Claim]:
        known = issuers_in_force(self.followed.journal)
        return {
            name: Claim(j.issuer, j.audience, (j.jwks or "").removeprefix("file:"), j.shared)
            for name, j in known.items()
        }


def clashes(one: Claim, other: Claim) -> bool:
    """Whether a token would be good for both, the issuer had two sets of keys, or one has it for itself."""
    alone = not (one.shared and other.shared)
    at_odds = alone or one.audience == other.audience or one.keys != other.keys
    return one.issuer == other.issuer and at_odds


def arrange(folder: Path, rounds: list[list[Step]]) -> None:
    """Looks after each round, and holds what is in force against what has to hold."""
    arranged = Arranged(folder)
    for steps in rounds:
        before, unchanged = arranged.in_force(), dict(arranged.files)
        for step in steps:
            arranged.take(step)
        arranged.followed.look()
        after = arranged.in_force()
        for name, claim in after.items():
            others = [each for other, each in after.items() if other != name]
            assert not any(clashes(claim, each) for each in others), (rounds, after)
        if arranged.models_broken:
            continue
        for name, claim in before.items():
            if arranged.files.get(name) in ("broken", claim) and name in arranged.files:
                assert after.get(name) == claim, ("what was first stays", rounds, before, after, unchanged)
        for name, said in arranged.files.items():
            if isinstance(said, Claim) and after.get(name) != said:
                others = [each for other, each in {**before, **after}.items() if other != name]
                others += [each for other, each in after.items() if other != name]
                assert any(clashes(said, each) for each in others), ("nobody is in the way", rounds, after)


@settings(max_examples=40)
@given(rounds=ARRANGEMENTS)
def test_an_issuer_belongs_to_who_named_it_first_until_it_is_let_go(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[Step]]
) -> None:
    arrange(tmp_path_factory.mktemp("arranged"), rounds)


@pytest.mark.long
@settings(max_examples=500)
@given(rounds=ARRANGEMENTS)
def test_an_issuer_belongs_to_who_named_it_first_in_500_arrangements(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[Step]]
) -> None:
    arrange(tmp_path_factory.mktemp("arranged"), rounds)


@pytest.mark.parametrize("again", [False, True], ids=["running", "begun anew"])
@pytest.mark.parametrize("everything", [False, True], ids=["its file alone", "every file read again"])
def test_a_tenant_held_back_for_a_mistake_keeps_its_issuer_from_others(
    tmp_path: Path, again: bool, everything: bool
) -> None:
    own, theft = Claim(ISSUERS[0], "x", "first"), Claim(ISSUERS[0], "x", "second")
    arranged = Arranged(tmp_path)
    arranged.take(("write", "team-b", own))
    arranged.followed.look()
    arranged.take(("break", "team-b", None))
    arranged.take(("write", "team-a", theft))
    if everything:
        arranged.take(("change all", "", None))
    if again:
        arranged.take(("begin anew", "", None))
    arranged.followed.look()
    assert arranged.in_force() == {"team-b": own}
    assert [each for each in arranged.followed.said if "is the issuer of team-b already" in each]
    arranged.take(("remove", "team-b", None))
    arranged.followed.look()
    assert arranged.in_force() == {"team-a": theft}, "it was let go"


class Doors:
    """A gateway with real keys, and tokens of every issuer for every audience by every set."""

    def __init__(self, gateway: WholeGateway, folder: Path) -> None:
        self.gateway, self.folder, self.rounds = gateway, folder, 0
        self.signers = {name: RSAKey.generate_key(2048, {"kid": name}) for name in (*SETS, "marker")}
        for name, key in self.signers.items():
            (folder / name).write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
        self.sets = {name: {"keys": [key.as_dict(private=False)]} for name, key in self.signers.items()}
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", timeout=10)
        self.tokens = {claim: self.token(claim) for claim in CLAIMS}

    def token(self, claim: Claim) -> str:
        claims = {"iss": claim.issuer, "aud": claim.audience, "sub": "eve", "scope": "model:* risk:*"}
        key = self.signers[claim.keys]
        return jwt.encode({"alg": "RS256"}, claims | {"exp": int(time.time()) + 3600}, key)

    def tell(self, claims: dict[str, Claim]) -> None:
        """Tells the gateway of them, whatever the catalog would say to that, and waits until they count."""
        self.rounds += 1
        marker = Claim("https://marker.example.com", f"round-{self.rounds}", "marker")
        lines = [self.line(name, claims.get(name)) for name in TENANTS]
        self.gateway.tenants.append(*lines, self.line("marker", marker))
        issuers = issuers_of(tenant_lines(self.gateway.tenants), self.folder)
        keys = {each.provider: fetch_key_set(each) for each in issuers}
        write_jwt_filter(self.gateway.jwt_file, jwt_filter(issuers, keys))
        token = self.token(marker)
        wait_until(lambda: self.opens(token, "marker"), what="the issuers", timeout_s=20, every_s=0.005)

    def line(self, name: str, claim: Claim | None) -> dict[str, Any]:
        if claim is None:
            return tenant_line(name, {"support_bot": "limited"})
        own = {"issuer": claim.issuer, "audience": claim.audience, "scopes_claim": "scope"}
        told = own | {"jwks": f"file:{claim.keys}"}
        told["provider"] = issuer_of(told, self.folder).provider
        return tenant_line(name, {"support_bot": "limited"}, jwt=told)

    def opens(self, token: str, tenant: str) -> bool:
        answer = self.client.get(f"/t/{tenant}/v1/models", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code in (200, 401), answer.text
        return answer.status_code == 200


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("doors")
    live = [Deployment(tenant=name, model="support_bot") for name in TENANTS]
    many = 10_000_000
    with whole_gateway(folder, live, refusals_recorded=0, strangers_a_minute=many) as gateway:
        doors = Doors(gateway, folder)
        yield doors
        doors.client.close()


def hold_tokens_against_doors(doors: Doors, count: int) -> None:
    chance = random.Random(20261130)
    opened = 0
    for _ in range(count):
        claims = {name: claim for name in TENANTS if (claim := chance.choice([None, *CLAIMS]))}
        doors.tell(claims)
        found = list(claims.values())
        for claim, token in doors.tokens.items():
            for name in TENANTS:
                opens = doors.opens(token, name)
                assert not opens or claims.get(name) == claim, (name, claim, claims)
                twice = any(each.issuer == claim.issuer and each.keys != claim.keys for each in found)
                assert opens or twice or claims.get(name) != claim, ("its own", name, claim, claims)
                opened += opens
    assert opened > count / 2, "a gateway that opens to nobody proves nothing"


def test_no_token_opens_another_s_door_whatever_the_gateway_was_told(doors: Doors) -> None:
    hold_tokens_against_doors(doors, 15)


@pytest.mark.long
def test_no_token_opens_another_s_door_in_500_arrangements(doors: Doors) -> None:
    hold_tokens_against_doors(doors, 500)
