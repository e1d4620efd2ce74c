"""Counts a dataset: rows, tokens, lengths, duplicates, and rows that the engine will cut."""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llm_assets.datasets.examples import Example
from llm_assets.datasets.mistakes import mistake
from llm_assets.facts import Facts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_ROWS = 1000


class Lengths(Facts):
    """Of rows, in tokens; the percentiles by nearest rank."""

    min: int
    mean: float
    p50: int
    p95: int
    max: int


class SourceFile(Facts):
    """A file of the landing zone, named from there."""

    file: str
    rows: int
    sha256: str


class DatasetStatistics(Facts):
    """What was counted, with the base model's tokenizer."""

    rows: int
    train_rows: int
    held_out_rows: int
    duplicates: int
    tokens: int
    length: Lengths
    cutoff_len: int
    rows_over_cutoff: int
    share_over_cutoff: float
    empty_answers: int
    mean_turns: float
    files: tuple[SourceFile, ...]
    unused_columns: tuple[str, ...]
    unlisted_files: tuple[str, ...]


class Statistics:
    """Counts examples as they pass, in batches, because the tokenizer is fastest so.

    Tokens are those of the texts of a row (system, tools, messages, answers) by the base model's
    tokenizer. The words that a chat template puts around them are not counted: a handful a message, so
    a row just under the cutoff may still be cut. A row's length is that of the longest sequence made of
    it: of a preference's two answers the longer one counts; `tokens` has both.
    """

    def __init__(self, tokenizer_file: Path) -> None:
        self._tokenizer = load_tokenizer(tokenizer_file)
        self._waiting: list[Example] = []
        self._lengths = array("Q")
        self._tokens = 0
        self._empty_answers = 0
        self._turns = 0

    def add(self, example: Example) -> None:
        self._waiting.append(example)
        self._turns += len(example.turns) + bool(example.answers)
        self._empty_answers += any(not answer.content.strip() for answer in example.answers)
        if len(self._waiting) >= BATCH_ROWS:
            self._count()

    def result(
        self,
        *,
        distinct_rows: int,
        held_out_rows: int,
        cutoff_len: int,
        files: Sequence[SourceFile],
        unused_columns: Sequence[str],
        unlisted_files: Sequence[str],
    ) -> DatasetStatistics:
        """The same for the same rows."""
        self._count()
        rows = len(self._lengths)
        over = sum(length > cutoff_len for length in self._lengths)
        return DatasetStatistics(
            rows=rows,
            train_rows=rows - held_out_rows,
            held_out_rows=held_out_rows,
            duplicates=rows - distinct_rows,
            tokens=self._tokens,
            length=_lengths(self._lengths),
            cutoff_len=cutoff_len,
            rows_over_cutoff=over,
            share_over_cutoff=round(over / rows, 4) if rows else 0.0,
            empty_answers=self._empty_answers,
            mean_turns=round(self._turns / rows, 2) if rows else 0.0,
            files=tuple(files),
            unused_columns=tuple(unused_columns),
            unlisted_files=tuple(unlisted_files),
        )

    def _count(self) -> None:
        texts: list[str] = []
        for example in self._waiting:
            texts += [example.system, example.tools, *(turn.content for turn in example.turns)]
            texts += [answer.content for answer in example.answers]
        encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        counts = iter([len(encoding.ids) for encoding in encoded])
        for example in self._waiting:
            asked = sum(next(counts) for _ in range(2 + len(example.turns)))
            answered = [next(counts) for _ in example.answers]
            self._lengths.append(asked + max(answered, default=0))
            self._tokens += asked + sum(answered)
        self._waiting = []


def load_tokenizer(path: Path) -> "Tokenizer":
    """The tokenizer of a `tokenizer.json`, neither cutting nor padding.

    Raises:
        DatasetError: The file is missing or is no tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        remedy = "give a base model with a tokenizer.json"
        raise mistake(path, f"is no tokenizer that can be loaded: {error}; {remedy}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _lengths(lengths: Sequence[int]) -> Lengths:
    if not lengths:
        return Lengths(min=0, mean=0.0, p50=0, p95=0, max=0)
    ordered = sorted(lengths)
    return Lengths(
        min=ordered[0],
        mean=round(sum(ordered) / len(ordered), 1),
        p50=ordered[-(-50 * len(ordered) // 100) - 1],
        p95=ordered[-(-95 * len(ordered) // 100) - 1],
        max=ordered[-1],
    )
