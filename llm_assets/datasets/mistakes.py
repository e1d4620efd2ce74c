"""What is wrong in a landing zone: each mistake with its file, line and field, and all of them at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from resources.errors import LlmAssetsError

SHOWN_MISTAKES = 50
LONGEST_TEXT = 2000  # characters


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One thing to correct. `line` counts from 1: where the row starts; in Parquet, the row itself."""

    file: str
    line: int | None
    field: str
    problem: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.field}: {self.problem}" if self.field else f"{place}: {self.problem}"


class DatasetError(LlmAssetsError):
    """A dataset that cannot be trained on. `mistakes` holds the first of them, `total` counts them all."""

    def __init__(self, mistakes: Iterable[Mistake], *, total: int | None = None) -> None:
        self.mistakes = tuple(mistakes)
        self.total = len(self.mistakes) if total is None else total
        lines = [str(mistake) for mistake in self.mistakes]
        if self.total > len(lines):
            lines.append(f"… and {self.total - len(lines)} more")
        counted = "1 mistake" if self.total == 1 else f"{self.total} mistakes"
        super().__init__("\n".join([f"{counted} in the dataset:", *lines]))


class Mistakes:
    """Collects mistakes: keeps the first `SHOWN_MISTAKES`, counts all."""

    def __init__(self) -> None:
        self._kept: list[Mistake] = []
        self.total = 0

    def add(self, file: Path, line: int | None, field: str, problem: str) -> None:
        self.total += 1
        if len(self._kept) < SHOWN_MISTAKES:
            self._kept.append(_short(file, line, field, problem))

    def extend(self, others: "Mistakes") -> None:
        self._kept = (self._kept + others._kept)[:SHOWN_MISTAKES]
        self.total += others.total

    def refuse(self) -> None:
        """Raises DatasetError if there was any mistake."""
        if self.total:
            raise DatasetError(self._kept, total=self.total)


def mistake(file: Path, problem: str, *, line: int | None = None, field: str = "") -> DatasetError:
    """The error of one single mistake."""
    return DatasetError([_short(file, line, field, problem)])


def _short(file: Path, line: int | None, field: str, problem: str) -> Mistake:
    """What a row says may be in the words of a mistake, at any length."""
    return Mistake(file=str(file), line=line, field=cut(field), problem=cut(problem))


def cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
