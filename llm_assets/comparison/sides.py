"""From two registered versions to their comparison: what the store holds of each."""

import json
from collections.abc import Mapping
from typing import Any

from llm_assets.comparison.comparing import Comparison, Side, compare
from llm_assets.comparison.markdown import comparison_markdown
from llm_assets.comparison.rows import compare_rows
from llm_assets.made_from import lineage_of
from llm_assets.model_cards.markdown import inline
from resources.artifact_store.artifacts import ArtifactError, Line
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
    return Side(
        version=version, lineage=lineage_of(store.get, store.get(version.source)), card=_card(store, version)
    )


def _card(store: ArtifactStore, version: RegisteredVersion) -> Mapping[str, Any] | None:
    line, digest = (
        Line(collection="cards", tenant=version.tenant, name=version.model),
        version.tags.get("card_digest"),
    )
    card = next((each for each in store.versions(line) if each.digest == digest), None)
    return None if card is None else dict(json.loads(store.read(card, "card.json")))
