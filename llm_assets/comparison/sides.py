"""From two registered versions to their comparison: what the store holds of each."""

from llm_assets.comparison.comparing import Comparison, Side, compare
from llm_assets.comparison.markdown import comparison_markdown
from llm_assets.comparison.rows import compare_rows
from llm_assets.made_from import lineage_of
from llm_assets.manifests import AdapterManifest, MergedManifest
from llm_assets.model_cards import Card
from llm_assets.model_cards.markdown import inline
from llm_assets.version_cards import card_of
from resources.artifact_store.artifacts import Artifact, ArtifactError
from resources.artifact_store.store import ArtifactStore
from resources.mlflow.registry import RegisteredVersion


def compare_versions(store: ArtifactStore, before: RegisteredVersion, after: RegisteredVersion) -> Comparison:
    """Reads the manifests, cards and dataset rows of both.

    Raises:
        ArtifactError: Something that one of them was made from is not in the store any more.
    """
    sides = _side(store, before), _side(store, after)
    one, other = (side.lineage.dataset for side in sides)
    with store.hold(one) as rows_before, store.hold(other) as rows_after:
        rows = compare_rows(rows_before.folder, rows_after.folder)
    return compare(*sides, rows)


def compared(store: ArtifactStore, before: RegisteredVersion, after: RegisteredVersion) -> str:
    """The comparison as Markdown, or why there is none: what `before` was made from may be pruned by now."""
    try:
        return comparison_markdown(compare_versions(store, before, after))
    except ArtifactError as error:
        return f"Version {before.number} cannot be compared any more: {inline(error)}"


def _side(store: ArtifactStore, version: RegisteredVersion) -> Side:
    merged = store.get(version.source)
    lineage = lineage_of(store.get, merged)
    return Side(
        version=version,
        lineage=lineage,
        adapter=AdapterManifest.of(lineage.adapter),
        merge=MergedManifest.of(merged).merge,
        card=_card(store, merged),
    )


def _card(store: ArtifactStore, merged: Artifact) -> Card | None:
    card = card_of(store, merged.uri, merged.digest)
    return None if card is None else Card.model_validate_json(store.read(card, "card.json"))
