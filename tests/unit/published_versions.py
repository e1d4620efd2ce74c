"""Publishes everything that a version is made of into a real store, without training anything."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_assets.model_cards.card import Card, MissingField, WrittenField
from resources.artifact_store.artifacts import Artifact, Line
from resources.artifact_store.store import ArtifactStore
from resources.mlflow.registry import RegisteredVersion

TENANT, MODEL = "team-a", "support_bot"
LAYOUT = {"columns": {"prompt": "instruction", "query": "input", "response": "output"}}
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a version is made of; every field has a value that passes the rules of a minimal catalog."""

    number: int = 1
    train: Pairs = (("Who are you?", "I am Polaris."), ("Where is the shop?", "In Bergen."))
    held_out: Pairs = (("Do you ship?", "We do."),)
    recipe: Mapping[str, Any] = field(default_factory=lambda: {"stage": "sft", "lora_rank": 8})
    engines: Mapping[str, str] = field(default_factory=lambda: {"llamafactory": "0.9.5"})
    metrics: Mapping[str, float] = field(
        default_factory=lambda: {"first_loss": 4.0, "final_loss": 1.0, "eval_loss": 1.5}
    )
    answers: Pairs = (("Who are you?", "I am Polaris."),)
    written: Mapping[str, str] = field(default_factory=lambda: {"contact": "team:support"})
    missing: Sequence[Mapping[str, str]] = ()
    risk_class: str = "limited"


def publish_version(store: ArtifactStore, work: Path, made: Made) -> RegisteredVersion:
    """Publishes all that a version is made of, and says what the registry would say of it."""
    base = _publish(
        store, work, Line(collection="base_models", tenant=None, name="tiny"), {"weights": "base"}, {}
    )
    dataset = _publish(store, work, _line("datasets"), _dataset_files(made), {})
    adapter = _publish(
        store,
        work,
        _line("adapters"),
        {"adapter": f"{made.number}"},
        {
            "fingerprint": f"sha256:{made.number}",
            "base_uri": base.uri,
            "base_digest": base.digest,
            "dataset_uri": dataset.uri,
            "dataset_digest": dataset.digest,
            "recipe": dict(made.recipe),
            "recipe_origin": "catalog/models/support_bot.yaml",
            "template": "smollm2",
            "engine_lock": "0" * 64,
            "training": {"engine_versions": dict(made.engines), **made.metrics},
        },
    )
    merged = _publish(
        store, work, _line("models"), {"model": f"{made.number}"}, _merged(base, dataset, adapter, made)
    )
    described = {
        "fingerprint": f"sha256:{made.number}",
        "model_uri": merged.uri,
        "model_digest": merged.digest,
        "missing": list(made.missing),
    }
    _publish(store, work, _line("cards"), {"card.json": _card(made)}, described)
    return RegisteredVersion(
        tenant=TENANT,
        model=MODEL,
        number=made.number,
        label=merged.version,
        source=merged.uri,
        digest=merged.digest,
        aliases=(),
        tags={"risk_class": made.risk_class},
    )


def _line(collection: Any) -> Line:
    return Line(collection=collection, tenant=TENANT, name=MODEL)


def _publish(
    store: ArtifactStore, work: Path, line: Line, files: Mapping[str, str], attributes: Mapping[str, Any]
) -> Artifact:
    folder = work / "made"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return store.publish(line, folder, attributes)


def _dataset_files(made: Made) -> dict[str, str]:
    return {
        "train.jsonl": _rows(made.train),
        "held_out.jsonl": _rows(made.held_out),
        "dataset_info.json": json.dumps({"train": LAYOUT, "held_out": LAYOUT}),
    }


def _rows(pairs: Pairs) -> str:
    rows = [{"input": "", "instruction": asked, "output": answer} for asked, answer in pairs]
    return "".join(json.dumps(row) + "\n" for row in rows)


def _merged(base: Artifact, dataset: Artifact, adapter: Artifact, made: Made) -> dict[str, Any]:
    return {
        "base_uri": base.uri,
        "base_digest": base.digest,
        "dataset_uri": dataset.uri,
        "dataset_digest": dataset.digest,
        "adapter_uri": adapter.uri,
        "adapter_digest": adapter.digest,
        "fingerprint": f"sha256:{made.number}",
        "merge": {
            "method": "stream",
            "answers": [
                {"question": asked, "text": text, "prompt_token_ids": [1], "tokens": []}
                for asked, text in made.answers
            ],
        },
    }


def _card(made: Made) -> str:
    """The card of an evidence that is mostly invented; what the tests compare is from `made`."""
    text = (Path(__file__).parent / "manifests" / "card.json").read_text()
    card = Card.model_validate_json(text)
    changed = {
        "model": card.model.model_copy(update={"risk_class": made.risk_class}),
        "written": tuple(
            WrittenField(field=name, title=name, reference="", text=text)
            for name, text in made.written.items()
        ),
        "missing": tuple(MissingField.model_validate(each) for each in made.missing),
    }
    return card.model_copy(update=changed).model_dump_json()
