"""What may become production: every rule, broken, on versions in a real store with real signatures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.tenants import TenantEntry
from llm_assets.made_from import lineage_of
from llm_assets.model_cards.ai_act import ai_act
from llm_assets.promotion_rules import PromotionRefused, PromotionRules, promotion_check, rollback_check
from llm_assets.signature_policy import sign_published
from llm_assets.version_cards import card_of, cards_of
from resources.artifact_store.artifacts import MANIFEST_NAME, SIGNATURE_NAME, Artifact, manifest_text
from resources.artifact_store.store import ArtifactStore
from resources.mlflow.registry import RegisteredVersion
from resources.signing.signatures import Signer, Verifier
from tests.stored import folder_of
from tests.unit.published_versions import MODEL, TENANT, Made, publish_version

MISSING = {
    "field": "contact",
    "title": "Contact",
    "reference": "Annex IV, point 1",
    "why": "says whom a user can reach",
    "remedy": "`card.contact` in `catalog/models/support_bot.yaml`",
}


def model(**changed: Any) -> ModelEntry:
    values = {
        "name": MODEL,
        "base_model": "tiny",
        "owner": "team:support",
        "purpose": "Answers.",
        "risk_class": "limited",
        "risk_reasoning": "It chats.",
        "recipe": {},
        "known_questions": ["Who are you?"],
        "thresholds": {"max_eval_loss": 2.0, "min_loss_drop": 0.5},
    }
    return ModelEntry.model_validate(values | changed)


def tenant(**changed: Any) -> TenantEntry:
    return TenantEntry.model_validate(
        {"name": TENANT, "owner": "team:team-a", "models": [MODEL], "signatures": "required"} | changed
    )


SUPPORT_BOT, TEAM_A = model(), tenant()


class Bench:
    """One version in a store, and the rules that it is held against."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = ArtifactStore(url=f"file:{root}/store")
        self.warnings: list[str] = []

    def version(self, *, signed: bool = True, **made: Any) -> RegisteredVersion:
        version = publish_version(self.store, self.root, Made(**made))
        for artifact in self.made_of(version) if signed else ():
            if self.store.signature(artifact) is None:  # the base model is that of every version
                sign_published(self.store, Signer(keys=self.root / "keys"), artifact)
        return version

    def made_of(self, version: RegisteredVersion) -> list[Artifact]:
        merged = self.store.get(version.source)
        lineage = lineage_of(self.store.get, merged)
        cards = cards_of(self.store, merged.uri, merged.digest)
        return [merged, lineage.adapter, lineage.dataset, lineage.base, *cards]

    def rules(self, model: ModelEntry, tenant: TenantEntry) -> PromotionRules:
        return PromotionRules(
            tenant=tenant, model=model, store=self.store, verifier=Verifier(keys=self.root / "keys")
        )

    def promote(
        self,
        version: RegisteredVersion,
        *,
        why: str = "better",
        force: bool = False,
        model: ModelEntry = SUPPORT_BOT,
        tenant: TenantEntry = TEAM_A,
    ) -> list[str]:
        check = promotion_check(self.rules(model, tenant), why=why, warn=self.warnings.append, force=force)
        return list(check(version))

    def roll_back(
        self, version: RegisteredVersion, *, model: ModelEntry = SUPPORT_BOT, why: str = ""
    ) -> None:
        rollback_check(self.rules(model, tenant()), why=why)(version)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_whole_signed_version_within_its_thresholds_may_be_promoted(bench: Bench) -> None:
    assert bench.promote(bench.version()) == []
    assert bench.warnings == []


# Each rule


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"eval_loss": 2.5}, r"held-out loss 2\.5 is above 2 \(thresholds\.max_eval_loss in catalog/models"),
        ({"eval_loss": float("nan")}, "held-out loss nan is above 2"),
        ({}, "no held-out loss was measured"),
        ({"eval_loss": 1.0, "first_loss": 4.0, "final_loss": 2.1}, r"from 4 to 2\.1, not down by 50%"),
        (
            {"eval_loss": 1.0, "first_loss": 4.0, "final_loss": float("nan")},
            r"from 4 to nan, not down by 50%",
        ),
        ({"eval_loss": 1.0}, "no training loss was recorded"),
    ],
)
def test_a_version_below_its_thresholds_is_refused_with_figure_and_place(
    bench: Bench, metrics: dict[str, float], said: str
) -> None:
    with pytest.raises(PromotionRefused, match=said):
        bench.promote(bench.version(metrics=metrics))


def test_thresholds_that_are_not_set_ask_nothing(bench: Bench) -> None:
    assert bench.promote(bench.version(metrics={}), model=model(thresholds={})) == []


def test_a_high_risk_model_needs_a_complete_card(bench: Bench) -> None:
    version = bench.version(missing=[MISSING], risk_class="high")
    with pytest.raises(PromotionRefused, match=r"Contact is missing.*`card\.contact` in `catalog/models"):
        bench.promote(version, model=model(risk_class="high"))


def test_gaps_in_the_card_of_another_model_are_only_told(bench: Bench) -> None:
    assert bench.promote(bench.version(missing=[MISSING])) == []
    assert "Contact is missing" in bench.warnings[0]


def test_what_no_field_can_answer_does_not_keep_a_high_risk_model_out_for_ever(bench: Bench) -> None:
    elsewhere = [
        each.model_dump(exclude={"risk_classes"}) | {"remedy": "keep it"} for each in ai_act().elsewhere
    ]
    version = bench.version(missing=elsewhere, risk_class="high")
    assert bench.promote(version, model=model(risk_class="high")) == []


def test_a_high_risk_model_without_its_card_is_refused(bench: Bench) -> None:
    version = bench.version(risk_class="high")
    bench.store.delete(bench.made_of(version)[-1])
    with pytest.raises(PromotionRefused, match=rf"no card of version {version.label} is in the store"):
        bench.promote(version, model=model(risk_class="high"))


def test_the_card_of_another_version_does_not_count(bench: Bench) -> None:
    bench.version(number=1, risk_class="high")
    version = bench.version(number=2, missing=[MISSING], risk_class="high")
    with pytest.raises(PromotionRefused, match="Contact is missing"):
        bench.promote(version, model=model(risk_class="high"))


def test_a_risk_class_that_the_tenant_does_not_allow_is_refused(bench: Bench) -> None:
    allowed = tenant(risk_classes=["minimal"])
    with pytest.raises(PromotionRefused, match=r"class limited, team-a allows minimal \(risk_classes in"):
        bench.promote(bench.version(), tenant=allowed)


@pytest.mark.parametrize("now", ["prohibited", "limited"])
def test_a_prohibited_practice_is_refused_also_if_it_only_was_one_at_registration(
    bench: Bench, now: str
) -> None:
    version = bench.version(risk_class="limited" if now == "prohibited" else "prohibited")
    with pytest.raises(PromotionRefused, match=r"EU AI Act, Art\. 5"):
        bench.promote(version, model=model(risk_class=now), force=True)


def test_an_unsigned_version_is_refused_where_signatures_are_required(bench: Bench) -> None:
    with pytest.raises(PromotionRefused, match=r"is not signed.*team-a demands signatures"):
        bench.promote(bench.version(signed=False))


def test_an_unsigned_version_may_serve_where_signatures_are_optional(bench: Bench) -> None:
    assert bench.promote(bench.version(signed=False), tenant=tenant(signatures="optional")) == []


@pytest.mark.parametrize("signatures", ["required", "optional"])
def test_an_altered_version_is_refused_always(bench: Bench, signatures: str) -> None:
    version = bench.version()
    (folder_of(bench.store, bench.store.get(version.source)) / SIGNATURE_NAME).write_bytes(b"{}")
    with pytest.raises(PromotionRefused, match="was altered after it was signed"):
        bench.promote(version, tenant=tenant(signatures=signatures), force=True)


def test_the_card_of_a_version_that_was_pruned_is_still_found(bench: Bench) -> None:
    other, version = bench.version(number=1), bench.version(number=2)
    merged, *_, card = bench.made_of(version)
    bench.store.delete(merged)
    assert card_of(bench.store, version.source, version.digest) == card
    assert card_of(bench.store, other.source, version.digest) is None


@pytest.mark.parametrize("which", ["adapter", "card"])
@pytest.mark.parametrize("how", ["altered", "unsigned"])
def test_what_is_read_from_a_manifest_that_nobody_signed_is_refused(
    bench: Bench, which: str, how: str
) -> None:
    version = bench.version()
    _, adapter, _, _, card = bench.made_of(version)
    artifact = adapter if which == "adapter" else card
    folder = folder_of(bench.store, artifact)
    if how == "unsigned":
        (folder / SIGNATURE_NAME).unlink()
    else:  # a better loss, or nothing missing, with a checksum that is right
        changed = replace(
            artifact,
            attributes={**artifact.attributes, "training": {"eval_loss": 0.1, "engine_versions": {}}},
        )
        (folder / MANIFEST_NAME).write_text(manifest_text(changed))
    said = "is not signed" if how == "unsigned" else "was altered after it was signed"
    with pytest.raises(PromotionRefused, match=rf"signature: {artifact.uri} {said}"):
        bench.promote(version, force=True)


@pytest.mark.parametrize(
    "tags", [{}, {"metric.eval_loss": "0.1", "metric.final_loss": "0.1", "card_digest": "x"}]
)
def test_a_versions_tags_decide_no_threshold_and_no_card(bench: Bench, tags: dict[str, str]) -> None:
    version = bench.version(
        metrics={"eval_loss": 9.0, "first_loss": 4.0, "final_loss": 3.0}, missing=[MISSING]
    )
    told = replace(version, tags={**version.tags, **tags})
    with pytest.raises(
        PromotionRefused, match=r"held-out loss 9 is above 2[^§]*from 4 to 3, not down by 50%"
    ):
        bench.promote(told)
    assert bench.warnings == [warning for warning in bench.warnings if "Contact is missing" in warning] != []


def test_a_damaged_file_is_refused_by_name(bench: Bench) -> None:
    version = bench.version()
    (folder_of(bench.store, bench.store.get(version.source)) / "model").write_text("9")
    with pytest.raises(PromotionRefused, match=r"artifact: .*the bytes of model are not those"):
        bench.promote(version)


def test_another_digest_than_the_registered_one_is_refused(bench: Bench) -> None:
    other = replace(bench.version(), digest="sha256:0000")
    with pytest.raises(PromotionRefused, match=r"the store holds sha256:.*registered was sha256:0000"):
        bench.promote(other)


def test_a_version_that_is_gone_from_the_store_is_refused(bench: Bench) -> None:
    gone = replace(
        bench.version(), source=f"artifact://models/{TENANT}/{MODEL}/20200101T000000.000000Z-00000000"
    )
    with pytest.raises(PromotionRefused, match="was never published"):
        bench.promote(gone)


def test_a_high_risk_model_is_not_promoted_without_a_reason(bench: Bench) -> None:
    with pytest.raises(PromotionRefused, match=r"moved without a reason \(--why is empty\)"):
        bench.promote(bench.version(risk_class="high"), model=model(risk_class="high"), why=" ")


# All at once, and overridden


def test_everything_that_is_broken_is_told_at_once(bench: Bench) -> None:
    version = bench.version(signed=False, metrics={"eval_loss": 9.0}, missing=[MISSING], risk_class="high")
    with pytest.raises(PromotionRefused) as refused:
        bench.promote(
            version, model=model(risk_class="high"), tenant=tenant(risk_classes=["limited"]), why=""
        )
    for rule in ("reason", "risk class", "signature", "thresholds", "model card"):
        assert f"\n- {rule}: " in str(refused.value)
    assert "--force" not in str(refused.value)


def test_force_overrides_thresholds_and_says_which(bench: Bench) -> None:
    version = bench.version(metrics={"eval_loss": 9.0, "first_loss": 4.0, "final_loss": 1.0})
    with pytest.raises(PromotionRefused, match="`--force --why …` overrides thresholds and model card"):
        bench.promote(version)
    (overridden,) = bench.promote(version, force=True)
    assert overridden.startswith("thresholds: held-out loss 9 is above 2")


def test_force_without_a_reason_is_refused(bench: Bench) -> None:
    version = bench.version(metrics={"eval_loss": 9.0, "first_loss": 4.0, "final_loss": 1.0})
    with pytest.raises(PromotionRefused, match="overridden without a reason"):
        bench.promote(version, force=True, why="")


def test_force_does_not_override_a_signature(bench: Bench) -> None:
    with pytest.raises(PromotionRefused, match="is not signed"):
        bench.promote(bench.version(signed=False), force=True)


# Rollback


def test_a_rollback_asks_neither_for_thresholds_nor_for_the_card(bench: Bench) -> None:
    bench.roll_back(bench.version(metrics={"eval_loss": 9.0}, missing=[MISSING]))


def test_a_rollback_to_an_altered_version_is_refused(bench: Bench) -> None:
    version = bench.version()
    (folder_of(bench.store, bench.store.get(version.source)) / SIGNATURE_NAME).write_bytes(b"{}")
    with pytest.raises(PromotionRefused, match=r"may not be rolled back to:\n- signature: .*altered"):
        bench.roll_back(version)


def test_a_rollback_of_a_high_risk_model_needs_a_reason(bench: Bench) -> None:
    version, high = bench.version(risk_class="high"), model(risk_class="high")
    with pytest.raises(PromotionRefused, match="without a reason"):
        bench.roll_back(version, model=high)
    bench.roll_back(version, model=high, why="it lies")
