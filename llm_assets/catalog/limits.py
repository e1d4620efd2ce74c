"""How a model's file and a recipe go with the base model: its positions, and embeddings that are one tensor.

The catalog may state a base model's `context_length` and `tied_embeddings`; what it leaves out is known once
the base model is fetched, and judged then: `late_mistakes` gives it file, line and key, before a training
starts.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from llm_assets.catalog.base_models import BaseModelEntry
from llm_assets.catalog.combinations import RESIZING, named_embeddings
from llm_assets.catalog.engine_packages import lacking, packages
from llm_assets.catalog.mistakes import Mistake, Problem, dotted
from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.opening import open_file
from llm_assets.catalog.recipes import Recipe
from llm_assets.catalog.web_ui import is_web_ui_form, translate
from llm_assets.catalog.yaml_files import read_yaml
from llm_assets.workers.merging.tying import TIED_IN_VLLM
from resources.base_models.folders import BaseModelFacts
from resources.engines.locks import Device
from resources.vllm.program import LORA_ON_EMBEDDINGS
from resources.vllm.streaming import STREAMED_SCHEMES

KV_CACHE_BLOCK_TOKENS = 128  # of vLLM 0.32 on a CPU (vllm/platforms/cpu.py)
DTYPE_BYTES = {"float32": 4, "float64": 8}  # 2 otherwise


@dataclass(frozen=True, kw_only=True)
class BaseLimits:
    """What is known of a base model; None for what is not."""

    context_length: int | None = None
    tied_embeddings: bool | None = None
    model_type: str | None = None
    dtype: str | None = None
    kv_cache_values_per_token: int | None = None

    @classmethod
    def declared(cls, base: BaseModelEntry) -> "BaseLimits":
        """By the catalog alone."""
        return cls(context_length=base.context_length, tied_embeddings=base.tied_embeddings)

    @classmethod
    def fetched(cls, facts: BaseModelFacts) -> "BaseLimits":
        """By the facts of the fetched base model's manifest."""
        return cls(**{field.name: getattr(facts, field.name) for field in fields(cls)})


def serving_beyond(model: ModelEntry, limits: BaseLimits) -> Iterator[Problem]:
    """What the model's file asks of vLLM that the base model cannot give."""
    wanted, length = model.serving.max_model_len, limits.context_length
    if length is not None and model.serving.mode != "none" and wanted > length:
        problem = f"{wanted} tokens, but {model.base_model} has positions for {length}"
        yield Problem(place=("serving", "max_model_len"), problem=problem, valid=f"at most {length}")


def unstreamable(model: ModelEntry, store_url: str) -> Iterator[Problem]:
    """Weights that are to be streamed from a store that vLLM cannot stream from."""
    serving = model.serving
    if serving.weights == "stream" and serving.mode != "none" and not store_url.startswith(STREAMED_SCHEMES):
        schemes = " and ".join(STREAMED_SCHEMES)
        problem = f"vLLM streams from {schemes}, and this installation's artifacts lie in {store_url}"
        valid = "disk, or LLM_ASSETS_STORE with such an address"
        yield Problem(place=("serving", "weights"), problem=problem, valid=valid)


def short_kv_cache(model: ModelEntry, limits: BaseLimits) -> Iterator[Problem]:
    """A KV cache in which vLLM, on a CPU, could not keep one request of `max_model_len` tokens."""
    serving, values = model.serving, limits.kv_cache_values_per_token
    if values is None or serving.mode == "none":
        return
    dtype = limits.dtype if serving.dtype == "auto" else serving.dtype
    blocks = math.ceil(serving.max_model_len / KV_CACHE_BLOCK_TOKENS) + 1  # vLLM keeps one for itself
    needed = math.ceil(blocks * KV_CACHE_BLOCK_TOKENS * values * DTYPE_BYTES.get(str(dtype), 2) / 2**20)
    if needed > serving.kv_cache_mib:
        problem = f"{serving.max_model_len} tokens of {model.base_model} need {needed} MiB on a CPU"
        valid = f"at least {needed}, or a smaller serving.max_model_len"
        yield Problem(place=("serving", "kv_cache_mib"), problem=problem, valid=valid)


def recipe_beyond(recipe: Mapping[str, object], model: ModelEntry, limits: BaseLimits) -> Iterator[Problem]:
    """What a recipe asks of the base model that it cannot give. Only what is written counts, no default."""
    wanted, length = recipe.get("cutoff_len"), limits.context_length
    if length is not None and isinstance(wanted, int) and wanted > length:
        problem = f"{wanted} tokens, but {model.base_model} has positions for {length}"
        yield Problem(place=("cutoff_len",), problem=problem, valid=f"at most {length}")
    kind, mode = limits.model_type, model.serving.mode
    if mode == "adapter" and kind not in (None, *LORA_ON_EMBEDDINGS) and _has_lora_on_embeddings(recipe):
        problem = f"vLLM loads no adapter of a {kind} model with LoRA on its embeddings"
        valid = "other modules, or serving.mode merged in the model's file"
        yield Problem(place=("lora_target",), problem=problem, valid=valid)
    if limits.tied_embeddings and recipe.get("finetuning_type", "lora") == "lora":
        yield from _tied(recipe, model, limits)


def _tied(recipe: Mapping[str, object], model: ModelEntry, limits: BaseLimits) -> Iterator[Problem]:
    """Embeddings that are one tensor in the base model and two once they were trained apart."""
    resizing = [key for key in RESIZING if recipe.get(key)]
    lora = ["lora_target"] if _has_lora_on_embeddings(recipe) else []
    if lora and (model.merge == "export" or resizing):
        problem = "LoRA on one of two tied embeddings, and an export would add it to both"
        valid = "no resized vocabulary" if resizing else "merge: stream in the model's file"
        yield Problem(place=("lora_target",), problem=problem, valid=f"{valid}, or other modules")
    if recipe.get("pissa_init") and "output" in named_embeddings(recipe.get("lora_target")):
        problem = "PiSSA would change both embeddings, which are one tensor, and its adapter holds one change"
        yield Problem(place=("lora_target",), problem=problem, valid="other modules, or pissa_init false")
    if limits.model_type in TIED_IN_VLLM and model.serving.mode != "none":
        apart = ["additional_target"] if named_embeddings(recipe.get("additional_target")) else []
        for key in (*lora, *apart, *resizing):
            problem = (
                f"it trains tied embeddings apart, and vLLM serves no {limits.model_type} model with two"
            )
            yield Problem(place=(key,), problem=problem, valid="leave them out, or a base with untied ones")


def _has_lora_on_embeddings(recipe: Mapping[str, object]) -> bool:
    return bool(named_embeddings(recipe.get("lora_target")))


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What an installation has: the device of its engines, and where artifacts are published."""

    device: Device
    store_url: str


def store_mistakes(catalog_folder: Path, models: Iterable[ModelEntry], store_url: str) -> list[Mistake]:
    """What the models' files ask of this installation's store that it cannot give."""
    found = {f"models/{each.name}.yaml": list(unstreamable(each, store_url)) for each in models}
    return _all_placed(catalog_folder, found)


def late_mistakes(
    folder: Path, model: ModelEntry, recipe: Recipe, *, limits: BaseLimits, machine: Machine
) -> list[Mistake]:
    """What only the fetched base model and this machine tell, with file and line.

    Args:
        folder: The catalog's folder; the files are read again, for the lines.
    """
    device = machine.device
    lacks = lacking(recipe.arguments, packages(device), where=f"the train engine's locks for {device}")
    of_recipe = [*recipe_beyond(recipe.arguments, model, limits), *lacks]
    if recipe.is_the_models:
        of_recipe = [replace(each, place=("recipe", *each.place)) for each in of_recipe]
    cache = short_kv_cache(model, limits) if device == "cpu" else ()
    of_serving = [*serving_beyond(model, limits), *unstreamable(model, machine.store_url), *cache]
    found = {f"models/{model.name}.yaml": of_serving}
    found.setdefault(recipe.origin, []).extend(of_recipe)
    return _all_placed(folder, found)


def _all_placed(folder: Path, found: Mapping[str, list[Problem]]) -> list[Mistake]:
    return [each for file, problems in found.items() if problems for each in _placed(folder, file, problems)]


def _placed(folder: Path, file: str, problems: list[Problem]) -> Iterator[Mistake]:
    with open_file(folder, file) as opened:
        document = read_yaml(opened)
    controls = translate(document.value).controls if is_web_ui_form(document.value) else {}
    for each in problems:
        place = (controls.get(str(each.place[0]), each.place[0]), *each.place[1:])
        yield Mistake(
            file=f"{folder.name}/{file}",
            line=document.line(place),
            field=dotted(place),
            problem=each.problem,
            valid=each.valid,
        )
