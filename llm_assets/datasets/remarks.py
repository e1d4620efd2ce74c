"""What is no mistake and is said all the same: what of the rows is not learned from, or may not be meant.

A row has remarks (`Remark`), a dataset collects them: each with the file, the line of the first row that it
is true of, and the number of such rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from llm_assets.datasets.mistakes import cut

Kind = Literal["left out", "placeholder", "note"]
MOST_OF_FILE = 30  # different ones; a file of templates has a placeholder of its own in each row


class Remark(NamedTuple):
    """`left out`: the model does not learn it. `placeholder`: a word that was to be filled in."""

    kind: Kind
    text: str


@dataclass(frozen=True, kw_only=True)
class FileRemark:
    """A remark on a file; `line` is None, and `rows` 0, where it is true of the file as a whole."""

    file: str
    line: int | None
    rows: int
    kind: Kind
    text: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        counted = "" if not self.rows else " (1 row)" if self.rows == 1 else f" ({self.rows} rows)"
        return f"{place}: {self.text}{counted}"

    def as_dict(self) -> dict[str, object]:
        return {
            "file": self.file,
            "line": self.line,
            "rows": self.rows,
            "kind": self.kind,
            "text": self.text,
        }


MORE = Remark("note", "there is more to be said of these rows; correct the first and look again")


class Remarks:
    """Collects the first `MOST_OF_FILE` different ones of each file, and counts their rows."""

    def __init__(self) -> None:
        self._of_file: dict[Path, dict[Remark, tuple[int | None, int]]] = {}

    def add(self, file: Path, line: int | None, remarks: Iterable[Remark]) -> None:
        """What is true of a row, or (without a line) of the file."""
        known = self._of_file.setdefault(file, {})
        for remark in dict.fromkeys(Remark(each.kind, cut(each.text)) for each in remarks):
            kept = remark if remark in known or len(known) < MOST_OF_FILE else MORE
            first, rows = known.get(kept, (line, 0))
            known[kept] = (first, rows + (line is not None))

    def all(self, folder: Path) -> tuple[FileRemark, ...]:
        """All of them, in the order of files, the files named from `folder`."""
        return tuple(
            FileRemark(file=_name(file, folder), line=line, rows=rows, kind=remark.kind, text=remark.text)
            for file, known in sorted(self._of_file.items())
            for remark, (line, rows) in known.items()
        )


def left_out(text: str) -> Remark:
    return Remark("left out", text)


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file != folder else "."
