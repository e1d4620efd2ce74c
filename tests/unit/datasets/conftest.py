"""A tokenizer made on the spot, and a landing zone to drop files into."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from llm_assets.datasets.checking import Terms, look_into
from llm_assets.datasets.landing_zone import opened_landing_zone
from llm_assets.datasets.limits import Limits
from llm_assets.datasets.mistakes import DatasetError, Mistake
from llm_assets.datasets.preparation import PreparedDataset, prepare

Row = dict[str, Any]
USUAL = Limits()


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that makes one token of each byte, so that a test can count."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.enable_truncation(5)  # as many published tokenizers do; statistics must not believe it
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture
def zone(tmp_path: Path) -> Path:
    folder = tmp_path / "team-a" / "support_bot"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def prepared(zone: Path, tmp_path: Path, tokenizer_file: Path) -> Callable[..., PreparedDataset]:
    """Prepares the landing zone into `tmp_path/out`, and sees that a check finds the same beforehand."""

    def run(stage: str = "sft", limits: Limits = USUAL, **changes: Any) -> PreparedDataset:
        options = {"cutoff_len": 64, "held_out_fraction": 0.2, "seed": 42} | changes
        learns_all = bool(options.get("train_on_prompt", False))
        terms = Terms(stage=stage, train_on_prompt=learns_all, holds_out=False)
        found = look_into(zone, tmp_path, terms, limits)
        mistakes: tuple[Mistake, ...] = ()
        error: DatasetError | None = None
        try:
            with opened_landing_zone(zone, tmp_path, limits) as opened:
                result = prepare(
                    opened, tmp_path / "out", stage=stage, tokenizer_file=tokenizer_file, **options
                )
        except DatasetError as caught:
            mistakes, error = caught.mistakes, caught
        if "changed while it was read" not in str(error):
            assert found.mistakes == mistakes
            assert error or found.remarks == result.remarks
        if error:
            raise error
        return result

    return run


def write_rows(path: Path, rows: Iterable[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def questions(number: int) -> list[Row]:
    return [
        {"instruction": f"What is {i} + 1?", "input": "", "output": f"It is {i + 1}."} for i in range(number)
    ]
