"""Looks into a landing zone before anything runs: what `prepare` would refuse, and what it would remark.

As a whole dataset may be large, the first rows of each file are looked at, and the run looks at all. What is
found is kept by a stamp of the folder, so a landing zone that did not change costs a few calls of `stat`.
"""

import hashlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from llm_assets.datasets.landing_zone import LandingZone, opened_landing_zone
from llm_assets.datasets.limits import Limits
from llm_assets.datasets.mistakes import DatasetError, Mistake, Mistakes
from llm_assets.datasets.remarks import FileRemark, Remark, Remarks
from llm_assets.datasets.rows import checked_rows
from llm_assets.datasets.sources import find_sources
from llm_assets.datasets.writing import layout_to_write

MOST_ROWS = 10_000
ONE_ROW = (
    "holds one row, or one row many times, so none can be held out to measure the training; "
    "give two different ones, or set dataset.held_out_fraction: 0 in the model's file"
)
FIRST_ROWS = Remark("note", f"the first {MOST_ROWS} rows were looked at; the run looks at all")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a dataset is read for, beside its rows: of the recipe and the model's file."""

    stage: str
    train_on_prompt: bool
    holds_out: bool


@dataclass(frozen=True, kw_only=True)
class Found:
    """`mistakes` are the first of `total`."""

    mistakes: tuple[Mistake, ...] = ()
    total: int = 0
    remarks: tuple[FileRemark, ...] = ()


def look_into(
    landing_zone: Path, root: Path, terms: Terms, limits: Limits, *, most_rows: int = MOST_ROWS
) -> Found:
    """What is wrong with the rows of `<root>/<tenant>/<model>`, and what is to be said of them."""
    mistakes, remarks = Mistakes(), Remarks()
    try:
        with opened_landing_zone(landing_zone, root, limits) as zone:
            _look(zone, terms, mistakes, remarks, most_rows)
        mistakes.refuse()
    except DatasetError as error:
        return Found(mistakes=error.mistakes, total=error.total, remarks=remarks.all(landing_zone))
    except OSError as error:
        problem = f"cannot be read: {error.strerror}; let the platform's user read it"
        place = str(error.filename or landing_zone)
        return Found(mistakes=(Mistake(file=place, line=None, field="", problem=problem),), total=1)
    return Found(remarks=remarks.all(landing_zone))


def stamp_of(landing_zone: Path, root: Path, *more: object) -> str:
    """Changes with any file below the landing zone, and with whatever else is given.

    Raises:
        DatasetError: It cannot be looked into.
    """
    whole = hashlib.sha256(repr(more).encode())
    with opened_landing_zone(landing_zone, root, Limits()) as zone:
        for entry in sorted(zone.walk(zone.path)):
            status = entry.status
            seen = (str(entry.path), status.st_size, status.st_mtime_ns, status.st_ino, status.st_mode)
            whole.update(repr(seen).encode())
    return whole.hexdigest()


def _look(zone: LandingZone, terms: Terms, mistakes: Mistakes, remarks: Remarks, most_rows: int) -> None:
    sources = find_sources(zone, terms.stage, mistakes, remarks, most_rows=most_rows)
    if not sources:
        return
    target = layout_to_write([source.layout for source in sources])
    different: set[str] = set()
    for source in sources:
        rows = checked_rows(source, target, mistakes, remarks, train_on_prompt=terms.train_on_prompt)
        seen = 0
        for row in islice(rows, most_rows):
            seen += 1
            if row is not None and len(different) < 2:
                different.add(row.text)
        if seen == most_rows:
            remarks.add(source.path, None, [FIRST_ROWS])
    if terms.holds_out and len(different) == 1 and not mistakes.total:
        mistakes.add(zone.path, None, "", ONE_ROW)
