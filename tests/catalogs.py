"""Catalogs of every kind: how many models, on which bases, trained and served how, used by whom."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

STAGES = ("sft", "dpo", "kto", "pt", "rm")
MODES = ("merged", "adapter", "none")
LONGEST = 63
SHARES_DAGSTERS_NAMES = (
    "a__dataset",
    "base_models_",
    "gateway_",
    "a_chain",
    "usage",
    "deployments",
    "class",
    "config",
    "type",
)
"""Valid, and near to the names that the graph makes itself: of steps, jobs, sensors and schedules."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a catalog's files are to say: models by name, and the models of each tenant."""

    base_models: tuple[str, ...]
    models: Mapping[str, Mapping[str, Any]]
    tenants: Mapping[str, tuple[str, ...]]

    def write(self, folder: Path) -> Path:
        """Writes the files; `folder` must not be there yet."""
        for name in self.base_models:
            _write(folder / "base_models" / f"{name}.yaml", _base_model(folder))
        for name, model in self.models.items():
            _write(folder / "models" / f"{name}.yaml", model)
        for name, models in self.tenants.items():
            _write(folder / "tenants" / f"{name}.yaml", {"owner": "team:shop", "models": models})
        for kind in ("base_models", "models", "tenants"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        return folder


def expected_assets(made: Made) -> set[tuple[str, ...]]:
    """The keys of its graph."""
    keys: set[tuple[str, ...]] = {("gateway", "usage"), *(("base_models", name) for name in made.base_models)}
    for name, each in made.models.items():
        kinds = ["dataset", "lora_adapter"]
        if each["recipe"]["stage"] != "rm":
            kinds += ["merged_model", "model_card"]
        if each["serving"]["mode"] != "none":
            kinds += ["vllm_deployment"]
        keys |= {(name, kind) for kind in kinds}
    return keys


def model(base_model: str, *, stage: str = "sft", mode: str = "merged") -> dict[str, Any]:
    return {
        "base_model": base_model,
        "owner": "team:support",
        "purpose": "Answers questions.",
        "risk_class": "minimal",
        "risk_reasoning": "Nobody uses it.",
        "recipe": {"stage": stage, "finetuning_type": "lora"},
        "serving": {"mode": mode},
        "known_questions": ["Who are you?"],
    }


def _base_model(folder: Path) -> dict[str, Any]:
    source = folder.parent / f"{folder.name}-source"
    source.mkdir(exist_ok=True)
    return {
        "source": f"file:{source}",
        "licence": "apache-2.0",
        "template": "smollm2",
        "owner": "team:platform",
        "description": "A base model that nobody imports.",
    }


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def model_names() -> SearchStrategy[str]:
    return st.one_of(
        st.sampled_from(SHARES_DAGSTERS_NAMES),
        st.sampled_from(["x" * LONGEST, "m" + "_" * (LONGEST - 1), "a", "a_", "a9"]),
        st.from_regex(r"[a-z][a-z0-9]{0,9}_[a-z0-9_]{1,40}", fullmatch=True),
    )


def tenant_names() -> SearchStrategy[str]:
    return st.one_of(
        st.sampled_from(["x" * LONGEST, "0", "1-2", "null", "on"]),
        st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True),
    )


@st.composite
def catalogs(draw: st.DrawFn, *, most_models: int = 4, most_tenants: int = 6) -> Made:
    """Any catalog that `check` accepts: names at their limits, models and tenants of every kind."""
    bases = draw(st.lists(model_names(), min_size=1, max_size=3, unique=True))
    names = draw(st.lists(model_names(), max_size=most_models, unique=True))
    models = {name: draw(_models(bases)) for name in names}
    chosen = st.lists(st.sampled_from(names), unique=True).map(tuple) if names else st.just(())
    tenants = draw(st.dictionaries(tenant_names(), chosen, max_size=most_tenants))
    return Made(base_models=tuple(bases), models=models, tenants=tenants)


def _models(bases: list[str]) -> SearchStrategy[dict[str, Any]]:
    kinds = [(stage, mode) for stage in STAGES for mode in MODES if stage != "rm" or mode == "none"]
    return st.builds(
        lambda base, kind: model(base, stage=kind[0], mode=kind[1]),
        st.sampled_from(bases),
        st.sampled_from(kinds),
    )
