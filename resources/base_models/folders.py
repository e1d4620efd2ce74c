"""Looks at a base model's folder before anything is trained on it: is it whole, safe to load, and what is it?

Of a folder, here or on a hub, only what belongs to the model is taken: safetensors and what goes with them
(configuration, tokenizer, chat template, licence), no pickles, no code, no other formats in subfolders.
Nothing is loaded: configuration, headers and names are read. That the weights have the right values, only
a digest can tell. Code that a model brings along (`*.py`) is left where it is, and what its configuration
says of such code (`auto_map`) is taken out: none of it is ever run.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from resources.base_models.error import BaseModelSourceError
from resources.base_models.safetensors_files import Tensor, read_folder
from resources.base_models.small_files import read_object

WANTED = (
    "*.safetensors",
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "*.tiktoken",
    "LICEN[CS]E*",
    "NOTICE*",
    "README.md",
)
UNWANTED = ("consolidated*", "adapter_*", "*.onnx*", "training_args*")  # consolidated: the same weights again
CONFIGURATIONS = "*config.json"
CODE_KEYS = ("auto_map", "custom_pipelines")  # of transformers: which class in which *.py to load
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
FRONT_MATTER_LICENCE = re.compile(r"\A---\n(?:.*\n)*?license:[ \t]*['\"]?([\w.+-]+)")
# As vLLM 0.32 looks for them (transformers_utils/model_arch_config_convertor.py).
POSITIONS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"),
    *("max_sequence_length", "max_seq_length", "seq_len"),
)
# Kinds of RoPE scaling whose factor is not yet in the configuration's positions (vllm/config/model.py).
UNSCALED = ("linear", "dynamic")
OUTPUT_LAYERS = ("lm_head.weight", "embed_out.weight", "output.weight")
FRONT_MATTER_BYTES = 1 << 16
MOST_COUNT = 2**40
LICENCE_TEXTS = {"apache license": "apache-2.0", "mit license": "mit", "bsd 3-clause license": "bsd-3-clause"}


@dataclass(frozen=True, kw_only=True)
class BaseModelFacts:
    """What a folder says of its model.

    Attributes:
        model_type: As transformers calls its kind of configuration (`gemma2`); None where it does not say.
        licence: None where neither README.md nor LICENSE tells.
        context_length: The most tokens that it has positions for; None where config.json does not limit them.
        tied_embeddings: Whether the output layer has the weights of the input embeddings.
        kv_cache_values_per_token: How many numbers a served token keeps in the KV cache; None where that is
            not the same for every token (sliding windows) or not told by layers and heads alone.
    """

    architecture: str
    parameters: int
    dtype: str
    size_bytes: int
    licence: str | None
    has_tokenizer_json: bool
    model_type: str | None
    context_length: int | None
    tied_embeddings: bool
    kv_cache_values_per_token: int | None


def inspect(folder: Path) -> BaseModelFacts:
    """The facts of a folder in Hugging Face's format.

    Raises:
        BaseModelSourceError: It holds pickles, lacks its configuration or weights, or a file is not whole.
    """
    if not folder.is_dir():
        raise BaseModelSourceError(f"{folder} is no folder; give one with config.json and model.safetensors.")
    _refuse_pickles_alone(folder)
    config = _config(folder / "config.json")
    tensors = read_folder(folder)
    return BaseModelFacts(
        architecture=_architecture(folder, config),
        parameters=sum(tensor.elements for tensor in tensors),
        dtype=_dtype(tensors),
        size_bytes=sum(file.stat().st_size for file in taken_files(folder)),
        licence=_licence(folder),
        has_tokenizer_json=(folder / "tokenizer.json").is_file(),
        model_type=_text(config, "model_type"),
        context_length=_context_length(config),
        tied_embeddings=_tied_embeddings(config, tensors),
        kv_cache_values_per_token=_kv_cache_values_per_token(config),
    )


def is_wanted(name: str) -> bool:
    """Whether a file of a model's folder is taken; `name` is its path below the folder."""
    kept = "/" not in name and any(fnmatch(name, pattern) for pattern in WANTED)
    return kept and not any(fnmatch(name, pattern) for pattern in UNWANTED)


def taken_files(folder: Path) -> list[Path]:
    """The files of the folder that belong to the model, by name."""
    return [file for file in _files(folder) if is_wanted(file.relative_to(folder).as_posix())]


def left_files(folder: Path) -> list[Path]:
    """All other files of the folder, by name, but those of hidden folders (a download's own records)."""
    return [file for file in _files(folder) if not is_wanted(file.relative_to(folder).as_posix())]


def take_out_code(folder: Path) -> list[str]:
    """Removes from a copied model's configurations what names code to be run; says what was removed.

    Raises:
        BaseModelSourceError: A configuration is no JSON object.
    """
    taken = []
    for path in sorted(folder.glob(CONFIGURATIONS)):
        content = read_object(path)
        named = [key for key in CODE_KEYS if key in content]
        if named:
            for key in named:
                del content[key]
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            taken.append(f"{', '.join(f'`{key}`' for key in named)} in {path.name}")
    return taken


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts[:-1])
        if path.is_file() and not hidden:
            yield path


def _refuse_pickles_alone(folder: Path) -> None:
    """Pickles beside safetensors are left where they are; a model that is pickles alone is not taken."""
    pickles = [file for file in left_files(folder) if file.suffix.lower() in PICKLES]
    if pickles and not any(file.suffix == ".safetensors" for file in taken_files(folder)):
        names = ", ".join(file.relative_to(folder).as_posix() for file in pickles)
        raise BaseModelSourceError(
            f"{folder} holds pickles, which can run code when they are loaded, and no safetensors: {names}. "
            "Save the model as safetensors (`save_pretrained(folder, safe_serialization=True)`) and give it."
        )


def _config(path: Path) -> dict[str, object]:
    if not path.is_file():
        raise BaseModelSourceError(f"{path.parent} has no config.json; give the whole folder of the model.")
    return read_object(path)


def _architecture(folder: Path, config: dict[str, object]) -> str:
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures:
        return str(architectures[0])
    if config.get("model_type"):
        return str(config["model_type"])
    raise BaseModelSourceError(
        f"{folder}/config.json names no architecture; give the configuration of a model."
    )


def _context_length(config: dict[str, object]) -> int | None:
    text = _mapping(config, "text_config") or config
    lengths = [length for key in POSITIONS if (length := _count(text, key))]
    if not lengths:
        return None
    scaling = _mapping(text, "rope_scaling") or _mapping(text, "rope_parameters")
    factor = scaling.get("factor", 1)
    unscaled = (scaling.get("rope_type") or scaling.get("type")) in UNSCALED
    if not (unscaled and isinstance(factor, int | float) and 0 < factor < MOST_COUNT):
        return min(lengths)
    return int(min(lengths) * factor)


def _mapping(values: dict[str, object], key: str) -> dict[str, object]:
    found = values.get(key)
    return found if isinstance(found, dict) else {}


def _count(values: dict[str, object], key: str) -> int | None:
    """A number that a model can have so many of; None for anything else."""
    found = values.get(key)
    return found if type(found) is int and 0 < found < MOST_COUNT else None


def _tied_embeddings(config: dict[str, object], tensors: tuple[Tensor, ...]) -> bool:
    """By its configuration; where that does not say, a model without an output layer of its own is tied."""
    said = config.get("tie_word_embeddings", _mapping(config, "text_config").get("tie_word_embeddings"))
    if said is not None:
        return bool(said)
    return not any(tensor.name.endswith(OUTPUT_LAYERS) for tensor in tensors)


def _kv_cache_values_per_token(config: dict[str, object]) -> int | None:
    text = _mapping(config, "text_config") or config
    layers, heads = _count(text, "num_hidden_layers"), _count(text, "num_attention_heads")
    said_types = text.get("layer_types")
    layer_types = set(map(str, said_types)) if isinstance(said_types, list) else set()
    windowed = text.get("sliding_window") is not None and text.get("use_sliding_window", True)
    if layer_types - {"full_attention"} or (windowed and not layer_types) or "kv_lora_rank" in text:
        return None
    hidden = _count(text, "hidden_size")
    if not (layers and heads and hidden):
        return None
    head_size = _count(text, "head_dim") or hidden // heads
    return 2 * layers * (_count(text, "num_key_value_heads") or heads) * head_size


def _dtype(tensors: tuple[Tensor, ...]) -> str:
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.dtype] += tensor.elements
    dtype = max(elements, key=lambda name: (elements[name], name), default="")
    return DTYPES.get(dtype, dtype.lower())


def _licence(folder: Path) -> str | None:
    readme = folder / "README.md"
    if readme.is_file():
        named = FRONT_MATTER_LICENCE.match(_beginning(readme))
        if named:
            return named.group(1).lower()
    for path in sorted(folder.glob("LICEN[CS]E*")):
        start = _beginning(path)[:500].lower()
        return next((name for text, name in LICENCE_TEXTS.items() if text in start), None)
    return None


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(FRONT_MATTER_BYTES).decode(errors="replace")


def _text(values: dict[str, object], key: str) -> str | None:
    found = values.get(key)
    return found if isinstance(found, str) else None
