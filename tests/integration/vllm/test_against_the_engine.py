"""What is written down about vLLM against the installed vLLM; its source is read, nothing is imported."""

import ast
import re
from pathlib import Path

import pytest

from resources.vllm.program import LORA_ON_EMBEDDINGS, LORA_RANKS, TOOL_CALL_PARSERS

pytestmark = pytest.mark.engine


def assigned(serve_python: Path, module: str, name: str) -> ast.expr:
    """What a module of vLLM assigns to a name."""
    [source] = serve_python.parents[1].glob(f"lib/python3*/site-packages/vllm/{module}")
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return node.value
    raise LookupError(f"{source} assigns no {name}")


def packages(python: Path, package: str) -> Path:
    [folder] = python.parents[1].glob(f"lib/python3*/site-packages/{package}")
    return folder


CLASS = re.compile(r"^class (\w+)\(([^)]*)\):(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
EMBEDDING_MODULES = re.compile(r"^    embedding_modules = (\{[^}]*\}|\w+)", re.MULTILINE)


def embedding_modules(models: Path) -> dict[str, set[str]]:
    """Of each class of vLLM's models, which embeddings LoRA may change: its own word, or its first base's.

    By patterns: 300 files are parsed in 15 s.
    """
    found: dict[str, tuple[list[str], str | None]] = {}
    for source in sorted(models.rglob("*.py")):
        for name, bases, body in CLASS.findall(source.read_text(encoding="utf-8")):
            own = EMBEDDING_MODULES.search(body)
            found[name] = (re.findall(r"\w+", bases), own[1] if own else None)

    def said(name: str) -> set[str] | None:
        bases, own = found.get(name, ([], None))
        if own is not None:
            return set(ast.literal_eval(own)) if own.startswith("{") else said(own)
        inherited = (said(base) for base in bases if base != name)  # of the same name in another module
        return next((of for of in inherited if of is not None), None)

    return {name: said(name) or set() for name in found}


def test_the_ranks_that_vllm_serves_are_those_of_the_lock(serve_python: Path) -> None:
    literal = assigned(serve_python, "config/lora.py", "MaxLoRARanks")
    assert isinstance(literal, ast.Subscript)
    assert ast.literal_eval(literal.slice) == LORA_RANKS


def test_the_parsers_of_tool_calls_are_those_of_the_lock(serve_python: Path) -> None:
    table = assigned(serve_python, "tool_parsers/__init__.py", "_TOOL_PARSERS_TO_REGISTER")
    assert isinstance(table, ast.Dict)
    assert {ast.literal_eval(key) for key in table.keys if key is not None} == TOOL_CALL_PARSERS


def test_lora_on_embeddings_is_served_of_the_models_whose_class_names_them(
    serve_python: Path, train_python: Path
) -> None:
    of_class = embedding_modules(packages(serve_python, "vllm") / "model_executor" / "models")
    registry = assigned(serve_python, "model_executor/models/registry.py", "_TEXT_GENERATION_MODELS")
    classes = {name: of for name, (_, of) in ast.literal_eval(registry).items()}
    auto = packages(train_python, "transformers") / "models" / "auto" / "modeling_auto.py"
    [pairs] = [
        node.value
        for node in ast.walk(ast.parse(auto.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign)
        and getattr(node.targets[0], "id", "") == "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
    ]
    assert isinstance(pairs, ast.Call)
    served = {
        kind
        for kind, architecture in ast.literal_eval(pairs.args[0])
        if len(of_class.get(classes.get(architecture, ""), ())) == len(("input", "output"))
    }
    assert served == LORA_ON_EMBEDDINGS
