"""What is written down about vLLM against the installed vLLM; its source is read, nothing is imported."""

import ast
from pathlib import Path

import pytest

from resources.vllm.program import LORA_RANKS, TOOL_CALL_PARSERS

pytestmark = pytest.mark.engine


def assigned(serve_python: Path, module: str, name: str) -> ast.expr:
    """What a module of vLLM assigns to a name."""
    [source] = serve_python.parents[1].glob(f"lib/python3*/site-packages/vllm/{module}")
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return node.value
    raise LookupError(f"{source} assigns no {name}")


def test_the_ranks_that_vllm_serves_are_those_of_the_lock(serve_python: Path) -> None:
    literal = assigned(serve_python, "config/lora.py", "MaxLoRARanks")
    assert isinstance(literal, ast.Subscript)
    assert ast.literal_eval(literal.slice) == LORA_RANKS


def test_the_parsers_of_tool_calls_are_those_of_the_lock(serve_python: Path) -> None:
    table = assigned(serve_python, "tool_parsers/__init__.py", "_TOOL_PARSERS_TO_REGISTER")
    assert isinstance(table, ast.Dict)
    assert {ast.literal_eval(key) for key in table.keys if key is not None} == TOOL_CALL_PARSERS
