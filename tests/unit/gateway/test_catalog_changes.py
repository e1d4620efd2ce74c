"""What the catalog says to the gateway, as files change, break and go."""

import shutil
import time
from functools import partial
from pathlib import Path

import pytest

from llm_assets.gateway.catalog_changes import CatalogChanges
from llm_assets.gateway.tenants import issuers_in_force, issuers_of, publish_tenants, tenant_lines
from resources.gateway.journals import Journal
from resources.gateway.jwt_filter import Issuer
from tests.conftest import ROOT

MODEL = """\
base_model: tiny
owner: team:support
purpose: Answers questions.
risk_class: limited
risk_reasoning: It talks to people.
recipe: {stage: sft, finetuning_type: lora}
known_questions: [Who are you?]
"""
TENANT = "owner: anna@example.com\nmodels: [support_bot]\n"
WITH_ISSUER = TENANT + "jwt: {issuer: 'https://idp.example.com', audience: team-b, jwks: 'file:keys.json'}\n"


class Followed:
    """A catalog, whoever follows it, and the journal that the gateway reads."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.journal = folder / "catalog", Journal(folder / "tenants.jsonl")
        self.said: list[str] = []
        for name in ("base_models", "models", "tenants"):
            (self.folder / name).mkdir(parents=True)
        base = ROOT / "catalog" / "base_models" / "smollm2_135m_instruct.yaml"
        shutil.copy(base, self.folder / "base_models" / "tiny.yaml")
        self.write("models/support_bot", MODEL)
        self.write("tenants/team-a", TENANT)
        self.write("tenants/team-b", WITH_ISSUER)
        self.start_again()

    def start_again(self) -> None:
        """Another process follows from here on."""
        self.changes = CatalogChanges(
            folder=self.folder, say=self.said.append, in_force=partial(issuers_in_force, self.journal)
        )

    def write(self, name: str, text: str) -> None:
        """As an editor does: a new file in the place of the old one."""
        draft = self.folder / "draft"
        draft.write_text(text)
        draft.rename(self.folder / f"{name}.yaml")

    def look(self) -> tuple[str, ...]:
        """The tenants that changed for the gateway."""
        if not self.changes.look() or not self.changes.read:
            return ()
        return publish_tenants(self.journal, self.changes)

    def lines(self) -> dict[str, dict]:
        return {line["tenant"]: line for line in tenant_lines(self.journal)}


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    followed = Followed(tmp_path)
    followed.look()
    return followed


def test_every_tenant_is_told_as_the_gateway_reads_it(followed: Followed) -> None:
    assert followed.lines()["team-b"] == {
        "tenant": "team-b",
        "models": {"support_bot": {"risk_class": "limited"}},
        "risk_classes": ["high", "limited", "minimal"],
        "limits": None,
        "jwt": {
            "issuer": "https://idp.example.com",
            "audience": "team-b",
            "scopes_claim": "scope",
            "jwks": "file:keys.json",
            "shared": False,
            "provider": Issuer(
                name="https://idp.example.com",
                audiences=(),
                key_source=f"file:{followed.folder / 'keys.json'}",
            ).provider,
        },
    }


def test_only_what_changed_is_told_again(followed: Followed) -> None:
    size = followed.journal.path.stat().st_size
    assert followed.look() == ()
    assert followed.journal.path.stat().st_size == size
    followed.write("tenants/team-a", TENANT + "limits: {concurrent_requests: 3}\n")
    assert followed.look() == ("team-a",)
    assert followed.lines()["team-a"]["limits"]["concurrent_requests"] == 3
    followed.write("models/support_bot", MODEL.replace("limited", "minimal"))
    assert followed.look() == ("team-a", "team-b")


def test_a_tenant_that_left_is_gone_and_may_come_again(followed: Followed) -> None:
    (followed.folder / "tenants" / "team-a.yaml").unlink()
    assert followed.look() == ("team-a",)
    assert list(followed.journal.events())[-1] == {"tenant": "team-a", "gone": True}
    followed.start_again()
    assert followed.look() == ()
    followed.write("tenants/team-a", TENANT)
    assert followed.look() == ("team-a",)
    assert set(followed.lines()) == {"team-a", "team-b"}


@pytest.mark.parametrize("again", [False, True], ids=["running", "started again"])
def test_a_tenant_whose_file_is_broken_stays_as_it_was_and_keeps_nobody_else(
    followed: Followed, again: bool
) -> None:
    before = followed.lines()["team-b"]
    followed.write("tenants/team-b", "owner: [")
    followed.write("tenants/team-c", TENANT)
    if again:
        followed.start_again()
    assert followed.look() == ("team-c",)
    assert followed.lines()["team-b"] == before
    (said,) = followed.said
    assert said.startswith("catalog/tenants/team-b.yaml:")
    assert said.endswith("What was there before goes on.")
    followed.write("tenants/team-d", TENANT)
    assert followed.look() == ("team-d",)
    assert len(followed.said) == 1, "a mistake is said once"
    followed.write("tenants/team-b", TENANT)
    assert followed.look() == ("team-b",)


@pytest.mark.parametrize("again", [False, True], ids=["running", "started again"])
def test_while_a_model_is_broken_everybody_stays_as_they_were(followed: Followed, again: bool) -> None:
    followed.write("models/support_bot", "owner: [")
    followed.write("tenants/team-c", TENANT)
    if again:
        followed.start_again()
    assert followed.look() == ()
    assert set(followed.lines()) == {"team-a", "team-b"}
    followed.write("models/support_bot", MODEL)
    assert followed.look() == ("team-c",)


def test_a_folder_of_tenants_that_is_missing_takes_nobody_away(followed: Followed) -> None:
    folder = followed.folder / "tenants"
    folder.rename(followed.folder / "elsewhere")
    assert followed.look() == ()
    (followed.folder / "elsewhere").rename(folder)
    assert followed.look() == ()
    assert set(followed.lines()) == {"team-a", "team-b"}


def test_a_new_tenant_with_the_issuer_and_audience_of_another_is_held_back(followed: Followed) -> None:
    followed.write("tenants/a-thief", WITH_ISSUER)
    assert followed.look() == ()
    (said,) = followed.said
    assert "a-thief.yaml: jwt.shared: https://idp.example.com is the issuer of team-b already" in said
    followed.write("tenants/a-thief", WITH_ISSUER.replace("audience: team-b", "audience: mine, shared: true"))
    assert followed.look() == (), "its owner does not share it"
    followed.write("tenants/a-thief", WITH_ISSUER.replace("idp.example.com", "other.example.com"))
    assert followed.look() == ("a-thief",)


def test_a_model_that_is_gone_or_not_served_is_not_asked_any_more(followed: Followed) -> None:
    followed.write("models/triage", MODEL)
    followed.write("tenants/team-a", TENANT.replace("[support_bot]", "[support_bot, triage]"))
    followed.look()
    followed.write("models/triage", MODEL.replace("known_questions: [Who are you?]", "serving: {mode: none}"))
    assert followed.look() == ("team-a",)
    (followed.folder / "models" / "support_bot.yaml").unlink()
    followed.look()
    assert followed.lines()["team-a"]["models"] == followed.lines()["team-b"]["models"] == {}


def test_a_shared_issuer_has_the_audiences_of_all_its_tenants(followed: Followed) -> None:
    for name in ("team-b", "team-c"):
        followed.write(
            f"tenants/{name}", WITH_ISSUER.replace("audience: team-b", f"audience: {name}, shared: true")
        )
    followed.look()
    (issuer,) = issuers_of(tenant_lines(followed.journal), followed.folder)
    assert (issuer.name, issuer.audiences) == ("https://idp.example.com", ("team-b", "team-c"))
    assert issuer.key_source == f"file:{followed.folder / 'keys.json'}"


def test_a_look_at_a_thousand_tenants_that_did_not_change_costs_a_part_of_reading_them(
    followed: Followed,
) -> None:
    """In processor time, which a busy machine does not lengthen."""
    for number in range(1000):
        (followed.folder / "tenants" / f"customer-{number}.yaml").write_text(TENANT)
    started = time.process_time()
    assert len(followed.look()) == 1000
    read = time.process_time()
    assert followed.look() == ()
    looked = time.process_time()
    followed.write("tenants/one-more", TENANT)
    assert followed.look() == ("one-more",)
    assert looked - read < (read - started) / 5
