"""What a training is: the same under another engine, and by which engine it was trained."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm_assets.catalog.recipes import Recipe
from llm_assets.manifests import TrainingResult
from llm_assets.training import Training, engine_upgrade
from resources.artifact_store.artifacts import Artifact, ArtifactFile, Line
from resources.engines.locks import InstalledEngine

OLD = InstalledEngine(engine="train", device="cpu", lock_digest="a" * 64, versions={"llamafactory": "0.9.5"})
NEW = InstalledEngine(engine="train", device="cpu", lock_digest="b" * 64, versions={"llamafactory": "0.9.6"})


def artifact(collection: Any, attributes: dict[str, Any]) -> Artifact:
    return Artifact(
        line=Line(
            collection=collection, tenant=None if collection == "base_models" else "team-a", name="bot"
        ),
        version="20261121T184501.123456Z-1a2b3c4d",
        files=(ArtifactFile(path="weights", size_bytes=1, sha256="0" * 64),),
        attributes=attributes,
    )


def training(engine: InstalledEngine, **arguments: Any) -> Training:
    return Training(
        base=artifact("base_models", {}),
        dataset=artifact("datasets", {}),
        recipe=Recipe(arguments=arguments, origin="models/bot.yaml"),
        template="smollm2",
        engine=engine,
    )


def test_another_engine_is_the_same_training_with_checkpoints_of_its_own() -> None:
    assert training(OLD).fingerprint == training(NEW).fingerprint
    line = Line(collection="adapters", tenant="team-a", name="bot")
    assert training(OLD).order(line).attempt(OLD) != training(NEW).order(line).attempt(NEW)
    assert training(OLD, lora_rank=8).order(line).attempt(OLD) != training(OLD).order(line).attempt(OLD)


@pytest.mark.parametrize(
    ("changed", "equal"),
    [({"lora_rank": 16}, False), ({"temperature": 0.1}, True), ({"ddp_timeout": 9}, True)],
)
def test_a_training_is_another_one_when_what_decides_it_is_another(
    changed: dict[str, Any], equal: bool
) -> None:
    recipe = {"lora_rank": 8}
    again = training(OLD, **recipe | changed)
    assert (again.fingerprint == training(OLD, **recipe).fingerprint) == equal
    manifest = again.manifest(TrainingResult(engine_versions={}))
    assert manifest.recipe_without_effect == tuple(changed) or not equal


@pytest.mark.parametrize(
    ("lock", "versions", "expected"),
    [
        ("b" * 64, {"llamafactory": "0.9.5"}, None),
        (
            "a" * 64,
            {"llamafactory": "0.9.5", "peft": "0.18"},
            "llamafactory 0.9.5, now 0.9.6; peft 0.18, now not installed",
        ),
        (
            "a" * 64,
            {"llamafactory": "0.9.6"},
            "the same versions of the packages that count, in another lock",
        ),
    ],
)
def test_what_another_engine_trained_says_what_has_changed_since(
    lock: str, versions: dict[str, str], expected: str | None
) -> None:
    known = json.loads((Path(__file__).parent / "manifests" / "adapter.json").read_text())
    adapter = artifact("adapters", {**known, "engine_lock": lock, "training": {"engine_versions": versions}})
    assert engine_upgrade(adapter, NEW) == expected
