"""What `prepare` writes, LLaMA-Factory reads: each row, with the tokens it makes of the tenant's own file."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_assets.datasets.landing_zone import opened_landing_zone
from llm_assets.datasets.limits import Limits
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


def load(tokenizer: Path, train_python: Path, cache: Path, places: list[str]) -> dict[str, list[Row]]:
    done = subprocess.run(
        [train_python, LOADER, tokenizer, *places],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    loaded: dict[str, list[Row]] = json.loads(done.stdout.splitlines()[-1])
    return loaded


def prepared(zone: Path, output: Path, tokenizer: Path, stage: str) -> None:
    with opened_landing_zone(zone, zone, Limits()) as opened:
        prepare(
            opened,
            output,
            stage=stage,
            tokenizer_file=tokenizer,
            cutoff_len=8192,
            held_out_fraction=0,
            seed=1,
        )


def test_the_engine_makes_the_same_tokens_of_what_is_written_as_of_the_tenants_own_file(
    tmp_path: Path, tokenizer_of_engine: Path, train_python: Path
) -> None:
    places: list[str] = []
    for name, (stage, rows, declared) in FORMATS.items():
        own, written = tmp_path / "own" / name, tmp_path / "written" / name
        own.mkdir(parents=True)
        write_rows(own / "rows.jsonl", rows)
        prepared(own, written, tokenizer_of_engine, stage)
        (own / "dataset_info.json").write_text(json.dumps({"train": {"file_name": "rows.jsonl"} | declared}))
        places += [f"{stage}:qwen:{own}", f"{stage}:qwen:{written}"]
    loaded = load(tokenizer_of_engine, train_python, tmp_path / "cache", places)
    for name, (stage, rows, _) in FORMATS.items():
        theirs, ours = (loaded[f"{stage}:qwen:{tmp_path / side / name}"] for side in ("own", "written"))
        assert len(ours) == len(rows), name
        assert ours == theirs, name


ANSWERS = ("First.", "Second, long enough.", "Third.", "Fourth.")
MASKS = ((0, 1, 1, 1), (1, 0, 0, 1), (0, 0, 0, 1), (1, 1, 1, 1), (1, 0, 1, 0))


def weighted(*weights: int | None) -> Row:
    """A conversation of as many rounds; without a weight where it is None."""
    messages: list[Row] = [{"role": "system", "content": "s"}]
    for number, (answer, weight) in enumerate(zip(ANSWERS, weights, strict=False)):
        messages.append({"role": "user", "content": f"{number}?"})
        said = {} if weight is None else {"weight": weight}
        messages.append({"role": "assistant", "content": answer, **said})
    return {"messages": messages}


@pytest.mark.parametrize("template", ["qwen", "qwen3", "glm4"])
def test_an_answer_of_weight_0_is_read_and_not_learned_from(
    tmp_path: Path, tokenizer_of_engine: Path, train_python: Path, template: str
) -> None:
    """Against the engine's own tokens and labels of the same conversations with every answer learned."""
    rows = {
        "masked": [weighted(*mask) for mask in MASKS],
        "plain": [weighted(*[None] * (4 - (mask[-1] == 0))) for mask in MASKS],  # what follows is dropped
    }
    for name, given in rows.items():
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name / "rows.jsonl", given)
        prepared(tmp_path / name, tmp_path / "out" / name, tokenizer_of_engine, "sft")
    places = {name: f"sft:{template}:{tmp_path / 'out' / name}" for name in rows}
    loaded = load(tokenizer_of_engine, train_python, tmp_path / "cache", list(places.values()))
    for mask, masked, plain in zip(MASKS, loaded[places["masked"]], loaded[places["plain"]], strict=True):
        assert masked["input_ids"] == plain["input_ids"]
        spans = learned_spans(plain["labels"])
        assert len(spans) == len([*mask]) - (mask[-1] == 0)
        expected = [
            label
            if any(start <= place < end and weight for (start, end), weight in zip(spans, mask, strict=False))
            else -100
            for place, label in enumerate(plain["labels"])
        ]
        assert masked["labels"] == expected
        assert any(label != -100 for label in masked["labels"])


def learned_spans(labels: list[int]) -> list[tuple[int, int]]:
    """Where the answers lie among the tokens."""
    starts = [i for i, label in enumerate(labels) if label != -100 and (i == 0 or labels[i - 1] == -100)]
    return [(i, next((j for j in range(i, len(labels)) if labels[j] == -100), len(labels))) for i in starts]
