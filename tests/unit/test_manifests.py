"""Manifests and cards as they are stored are read by types, and written again to the byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm_assets.manifests import (
    AdapterManifest,
    BaseModelManifest,
    CardManifest,
    DatasetManifest,
    Manifest,
    MergedManifest,
    Parents,
)
from llm_assets.model_cards.card import Card
from resources.artifact_store.artifacts import (
    Artifact,
    ArtifactError,
    ArtifactFile,
    Line,
    fingerprint_of,
    manifest_text,
)

EXAMPLES = Path(__file__).parent / "manifests"
KINDS: dict[str, type[Manifest]] = {
    "base_model": BaseModelManifest,
    "dataset": DatasetManifest,
    "adapter": AdapterManifest,
    "merged_model": MergedManifest,
    "exported_model": MergedManifest,
    "model_card": CardManifest,
}


def artifact(attributes: dict[str, Any]) -> Artifact:
    return Artifact(
        line=Line(collection="models", tenant="team-a", name="support_bot"),
        version="20261121T184501.123456Z-1a2b3c4d",
        files=(ArtifactFile(path="a", size_bytes=1, sha256="0" * 64),),
        attributes=attributes,
    )


def stored(kind: str) -> Artifact:
    return artifact(json.loads((EXAMPLES / f"{kind}.json").read_text()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_manifest_is_read_and_would_be_published_to_the_same_byte(kind: str) -> None:
    read = KINDS[kind].of(stored(kind))
    assert manifest_text(artifact(read.attributes())) == manifest_text(stored(kind))


def test_a_stored_card_is_read_and_written_to_the_same_byte_with_the_same_fingerprint() -> None:
    text = (EXAMPLES / "card.json").read_text()
    card = Card.model_validate_json(text).model_dump()
    assert json.dumps(card, indent=1, ensure_ascii=False, sort_keys=True) + "\n" == text
    assert fingerprint_of(card=card, model="sha256:x") == (
        "sha256:dda490524cabd9d52de02f01fd54f05a122485e22227927d012285796496ac7d"
    )


def test_what_a_later_release_says_is_kept() -> None:
    later = artifact(dict(stored("adapter").attributes) | {"energy_wh": 12})
    assert AdapterManifest.of(later).attributes()["energy_wh"] == 12


def test_a_manifest_of_another_kind_is_refused_and_names_the_fields() -> None:
    with pytest.raises(ArtifactError, match=r"support_bot.* as a AdapterManifest: recipe: Field required"):
        AdapterManifest.of(stored("merged_model"))


def test_every_manifest_says_what_it_was_made_from() -> None:
    assert Parents.of(stored("dataset")).uris == ()
    collections = [uri.split("/")[2] for uri in Parents.of(stored("merged_model")).uris]
    assert collections == ["base_models", "datasets", "adapters"]
