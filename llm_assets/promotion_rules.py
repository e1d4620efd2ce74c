"""What must hold before a version becomes production, and before a rollback goes back to one.

Every broken rule is told at once, each with what is wrong, where, and the remedy. What is known of a version
is read from signed manifests (the losses from that of its adapter, what is missing from that of its card) and
from the signed log of promotions (digest, risk class), never from MLflow's tags. Signature, bytes and risk
class stand whatever anybody says; thresholds and model card may be overridden by a person who says why, and
the registry's history keeps the rules that were overridden.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.tenants import TenantEntry
from llm_assets.installation.settings import Settings
from llm_assets.loss_rules import Measured, missed_fall
from llm_assets.made_from import parent_of
from llm_assets.manifests import AdapterManifest, CardManifest
from llm_assets.model_cards.ai_act import can_be_filled_in
from llm_assets.signature_policy import bundle_of, require_signature, verifier_of
from llm_assets.version_cards import card_of
from resources.artifact_store.artifacts import Artifact, ArtifactError
from resources.artifact_store.store import ArtifactStore
from resources.errors import LlmAssetsError
from resources.mlflow.registry import RegisteredVersion
from resources.signing.signatures import SignatureError, Verifier

Rule = Literal["artifact", "signature", "risk class", "thresholds", "model card", "reason"]
OVERRIDABLE: tuple[Rule, ...] = ("thresholds", "model card")


class PromotionRefused(LlmAssetsError):
    """A version may not become production."""


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A rule that does not hold. One that is not `blocking` is only worth a warning."""

    rule: Rule
    what: str
    where: str
    remedy: str
    blocking: bool = True

    def __str__(self) -> str:
        return f"{self.rule}: {self.what} ({self.where}). {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class PromotionRules:
    """The rules of one tenant's model."""

    tenant: TenantEntry
    model: ModelEntry
    store: ArtifactStore
    verifier: Verifier

    def of_promotion(self, version: RegisteredVersion) -> Iterator[Broken]:
        yield from self.of_rollback(version)
        try:
            merged = self.store.get(version.source)
        except ArtifactError:
            return  # told already; nothing else is known of it
        yield from self._of_training(version, merged)
        card = card_of(self.store, merged.uri, merged.digest)
        if card is not None:
            yield from self._signature(card)
        yield from broken_card(self.model, version, card)

    def of_rollback(self, version: RegisteredVersion) -> Iterator[Broken]:
        """What holds even when a bad version must go at once: it served before, but is it still the same?"""
        yield from broken_risk_class(self.tenant, self.model, version)
        try:
            merged = self.store.verify(self.store.get(version.source))
        except ArtifactError as error:
            remedy = _another_version(version)
            yield Broken(rule="artifact", what=str(error), where=version.source, remedy=remedy)
            return
        yield from broken_artifact(merged, version)
        yield from self._signature(merged)

    def _of_training(self, version: RegisteredVersion, merged: Artifact) -> Iterator[Broken]:
        try:
            adapter = parent_of(self.store.get, merged, "adapter")
            losses = AdapterManifest.of(adapter).training.losses
        except ArtifactError as error:
            remedy = _another_version(version)
            yield Broken(rule="artifact", what=str(error), where=merged.uri, remedy=remedy)
            return
        yield from self._signature(adapter)
        yield from broken_thresholds(self.model, losses)

    def _signature(self, artifact: Artifact) -> Iterator[Broken]:
        return broken_signature(self.tenant, self.verifier, artifact, bundle_of(self.store, artifact))


def rules_of(
    catalog: Catalog, settings: Settings, store: ArtifactStore, tenant: str, model: str
) -> PromotionRules:
    return PromotionRules(
        tenant=catalog.tenants[tenant],
        model=catalog.models[model],
        store=store,
        verifier=verifier_of(settings),
    )


def promotion_check(
    rules: PromotionRules, *, why: str, warn: Callable[[str], None], force: bool = False
) -> Callable[[RegisteredVersion], Sequence[str]]:
    """What the registry asks before it promotes a version. `force` overrides the rules in `OVERRIDABLE`."""

    def check(version: RegisteredVersion) -> Sequence[str]:
        broken = [*broken_reason(rules.model, version, why, force=force), *rules.of_promotion(version)]
        for each in broken:
            if not each.blocking:
                warn(str(each))
        return _overridden(version, "promoted", [each for each in broken if each.blocking], force=force)

    return check


def rollback_check(rules: PromotionRules, *, why: str) -> Callable[[RegisteredVersion], Sequence[str]]:
    """What the registry asks before it goes back to a version."""

    def check(version: RegisteredVersion) -> Sequence[str]:
        broken = [*broken_reason(rules.model, version, why, force=False), *rules.of_rollback(version)]
        return _overridden(version, "rolled back to", broken, force=False)

    return check


def _overridden(
    version: RegisteredVersion, action: str, broken: Sequence[Broken], *, force: bool
) -> Sequence[str]:
    standing = [each for each in broken if not (force and each.rule in OVERRIDABLE)]
    if not standing:
        return tuple(str(each) for each in broken)
    lines = "".join(f"\n- {each}" for each in standing)
    hint = ""
    if not force and action == "promoted" and all(each.rule in OVERRIDABLE for each in standing):
        hint = (
            f"\n`--force --why …` overrides {' and '.join(OVERRIDABLE)}; who did it and why stays on record."
        )
    raise PromotionRefused(
        f"Version {version.number} ({version.label}) of {version.model} of {version.tenant} may not be "
        f"{action}:{lines}{hint}"
    )


def broken_thresholds(model: ModelEntry, measured: Measured) -> Iterator[Broken]:
    """The model's thresholds of today against what was measured when the version was trained."""
    asked = model.thresholds
    loss, limit = measured.get("eval_loss"), asked.max_eval_loss
    if limit is not None and (loss is None or not loss <= limit):
        found = (
            "no held-out loss was measured"
            if loss is None
            else f"held-out loss {loss:.4g} is above {limit:g}"
        )
        yield _below(model, found, "max_eval_loss")
    if missed := missed_fall(asked, measured):
        yield _below(model, missed, "min_loss_drop")


def _below(model: ModelEntry, what: str, threshold: str) -> Broken:
    return Broken(
        rule="thresholds",
        what=what,
        where=f"thresholds.{threshold} in catalog/models/{model.name}.yaml",
        remedy="Train with better data or another recipe, or change the threshold and say why in the commit.",
    )


def broken_card(model: ModelEntry, version: RegisteredVersion, card: Artifact | None) -> Iterator[Broken]:
    """A high-risk model needs every field that can be filled in; of others the gaps are only told."""
    blocking = "high" in _risk_classes(model, version)
    again = f"`llm-assets run {version.model} --tenant {version.tenant}` writes the card anew."
    if card is None:
        gone = f"no card of version {version.label} is in the store"
        yield Broken(rule="model card", what=gone, where="cards", remedy=again, blocking=blocking)
        return
    for missing in can_be_filled_in(CardManifest.of(card).missing):
        yield Broken(
            rule="model card",
            what=f"{missing.title} is missing: it {missing.why} (EU AI Act, {missing.reference})",
            where=missing.remedy,
            remedy=f"Fill it in; {again}",
            blocking=blocking,
        )


def broken_risk_class(tenant: TenantEntry, model: ModelEntry, version: RegisteredVersion) -> Iterator[Broken]:
    """Neither the class that the catalog gives the model now nor the one the version was registered with."""
    for risk_class in _risk_classes(model, version):
        if risk_class == "prohibited":
            what = "a prohibited practice is not put into service (EU AI Act, Art. 5)"
            where = f"risk_class in catalog/models/{model.name}.yaml"
            yield Broken(rule="risk class", what=what, where=where, remedy="Do not use this model.")
        elif risk_class not in tenant.risk_classes:
            allowed = ", ".join(tenant.risk_classes)
            yield Broken(
                rule="risk class",
                what=f"the model is of class {risk_class}, {tenant.name} allows {allowed}",
                where=f"risk_classes in catalog/tenants/{tenant.name}.yaml",
                remedy=f"Add {risk_class} there, if {tenant.owner} agrees.",
            )


def broken_artifact(merged: Artifact, version: RegisteredVersion) -> Iterator[Broken]:
    if merged.digest != version.digest:
        yield Broken(
            rule="artifact",
            what=f"the store holds {merged.digest[:19]}…, registered was {version.digest[:19]}…",
            where=version.source,
            remedy=_another_version(version),
        )


def broken_signature(
    tenant: TenantEntry, verifier: Verifier, artifact: Artifact, bundle: bytes | None
) -> Iterator[Broken]:
    try:
        require_signature(tenant, verifier, artifact, bundle)
    except SignatureError as error:
        remedy = "No override exists for this rule."
        yield Broken(rule="signature", what=str(error).rstrip("."), where=artifact.uri, remedy=remedy)


def broken_reason(
    model: ModelEntry, version: RegisteredVersion, why: str, *, force: bool
) -> Iterator[Broken]:
    """Moving a high-risk model, or overriding a rule, needs a reason that somebody can read later."""
    high = "high" in _risk_classes(model, version)
    if not why.strip() and (high or force):
        what = (
            "a high-risk model is moved without a reason" if high else "a rule is overridden without a reason"
        )
        yield Broken(rule="reason", what=what, where="--why is empty", remedy='Say why: `--why "…"`.')


def _risk_classes(model: ModelEntry, version: RegisteredVersion) -> list[str]:
    """Today's and that of its registration, by the signed log, each once."""
    return list(dict.fromkeys((model.risk_class, version.tags.get("risk_class", model.risk_class))))


def _another_version(version: RegisteredVersion) -> str:
    return (
        "Promote another version, or delete what is left of this one and "
        f"`llm-assets run {version.model} --tenant {version.tenant}`."
    )
