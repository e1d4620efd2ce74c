"""What `prepare` writes, LLaMA-Factory reads: each row, with the tokens it makes of the tenant's own file."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_assets.datasets.preparation import prepare
from tests.unit.datasets.conftest import write_rows

pytestmark = pytest.mark.engine

LOADER = Path(__file__).with_name("load_with_engine.py")
CALL = json.dumps({"name": "add", "arguments": {"a": 1}})
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer", "description": "One of them."}}}
TOOLS = json.dumps([{"name": "add", "description": "Adds.", "parameters": PARAMETERS}])
OPENAI_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}
Row = dict[str, Any]


def said(*turns: tuple[str, str], role: str = "from", content: str = "value") -> list[Row]:
    return [{role: speaker, content: text} for speaker, text in turns]


def numbered(row: Callable[[int], Row]) -> list[Row]:
    return [row(number) for number in range(6)]


# A format: the engine's stage, a tenant's rows, and how LLaMA-Factory's users would declare their file.
FORMATS: dict[str, tuple[str, list[Row], Row]] = {
    "alpaca": (
        "sft",
        numbered(
            lambda i: {
                "instruction": f"What is {i}?",
                "input": "" if i % 2 else "Be kind.",
                "output": f"{i}.",
            }
        ),
        {},
    ),
    "alpaca_with_history": (
        "sft",
        numbered(
            lambda i: {
                "instruction": f"And {i}?",
                "output": f"{i}!",
                "history": [["Hello", "Hi"], ["1?", "1"]] if i % 2 else [],
                "system": "Be brief.",
            }
        ),
        {
            "columns": {
                "prompt": "instruction",
                "response": "output",
                "history": "history",
                "system": "system",
            }
        },
    ),
    "sharegpt_with_tools": (
        "sft",
        numbered(
            lambda i: {
                "conversations": said(
                    ("human", f"{i}?"), ("function_call", CALL), ("observation", "2"), ("gpt", f"{i}!")
                ),
                "tools": TOOLS,
                "system": "s",
            }
        ),
        {
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "tools": "tools", "system": "system"},
        },
    ),
    "openai": (
        "sft",
        numbered(
            lambda i: {
                "messages": said(
                    ("system", "s"), ("user", f"{i}?"), ("assistant", f"{i}!"), role="role", content="content"
                )
            }
        ),
        {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": OPENAI_TAGS},
    ),
    "preference": (
        "rm",
        numbered(lambda i: {"instruction": f"{i}?", "input": "", "chosen": f"{i}!", "rejected": "No."}),
        {
            "ranking": True,
            "columns": {
                "prompt": "instruction",
                "query": "input",
                "chosen": "chosen",
                "rejected": "rejected",
            },
        },
    ),
    "preference_of_conversations": (
        "rm",
        numbered(
            lambda i: {
                "conversations": said(("human", f"{i}?")),
                "chosen": said(("gpt", f"{i}!"))[0],
                "rejected": said(("gpt", "No."))[0],
            }
        ),
        {
            "ranking": True,
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
        },
    ),
    "kto": (
        "kto",
        numbered(lambda i: {"instruction": f"{i}?", "output": f"{i}!", "kto_tag": i % 2 == 0}),
        {"columns": {"prompt": "instruction", "response": "output", "kto_tag": "kto_tag"}},
    ),
    "text": ("pt", numbered(lambda i: {"text": f"The number is {i}."}), {"columns": {"prompt": "text"}}),
}


@pytest.fixture(scope="module")
def tokenizer_of_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(name) for name in ("<|im_start|>", "<|im_end|>", "<|pad|>")])
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_the_engine_makes_the_same_tokens_of_what_is_written_as_of_the_tenants_own_file(
    tmp_path: Path, tokenizer_of_engine: Path, train_python: Path
):
    places: list[str] = []
    for name, (stage, rows, declared) in FORMATS.items():
        own, written = tmp_path / "own" / name, tmp_path / "written" / name
        own.mkdir(parents=True)
        write_rows(own / "rows.jsonl", rows)
        prepare(
            own,
            written,
            stage=stage,
            tokenizer_file=tokenizer_of_engine,
            cutoff_len=8192,
            held_out_fraction=0,
            seed=1,
        )
        (own / "dataset_info.json").write_text(json.dumps({"train": {"file_name": "rows.jsonl"} | declared}))
        places += [f"{stage}:{own}", f"{stage}:{written}"]
    done = subprocess.run(
        [train_python, LOADER, tokenizer_of_engine, *places],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = json.loads(done.stdout.splitlines()[-1])
    for name, (_, rows, _) in FORMATS.items():
        own, written = loaded[str(tmp_path / "own" / name)], loaded[str(tmp_path / "written" / name)]
        assert len(written) == len(rows), name
        assert written == own, name
