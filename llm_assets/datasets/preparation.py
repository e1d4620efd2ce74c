"""Prepares a tenant's dataset for training: reads, checks, counts, splits, and writes it for LLaMA-Factory.

Same bytes in, same bytes out. Rows are streamed through a file, so a million of them take some hundred
megabytes of memory (a hash a row), not gigabytes.
"""

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_assets.datasets.landing_zone import DATASET_INFO, LandingZone
from llm_assets.datasets.layouts import Layout, combined
from llm_assets.datasets.mistakes import Mistakes, mistake
from llm_assets.datasets.remarks import FileRemark, Remarks
from llm_assets.datasets.rows import HELD_OUT, TRAIN, Rows
from llm_assets.datasets.sources import Source, find_sources, unlisted
from llm_assets.datasets.split import held_out_keys
from llm_assets.datasets.statistics import DatasetStatistics, SourceFile, Statistics

STATISTICS = "statistics.json"
PARTIAL = ".partial"


@dataclass(frozen=True, kw_only=True)
class PreparedDataset:
    """What was written: LLaMA-Factory's datasets `train` and, unless it has no rows, `held_out`."""

    format: str
    rows: int
    train_rows: int
    held_out_rows: int
    statistics: DatasetStatistics
    remarks: tuple[FileRemark, ...]
    samples: list[dict[str, Any]]


def prepare(
    zone: LandingZone,
    output: Path,
    *,
    stage: str,
    tokenizer_file: Path,
    cutoff_len: int,
    held_out_fraction: float,
    seed: int,
    train_on_prompt: bool = False,
) -> PreparedDataset:
    """Writes `train.jsonl`, `held_out.jsonl`, `dataset_info.json` and `statistics.json` into `output`.

    `cutoff_len` (in tokens) and `train_on_prompt` are the recipe's. `output` gets all files or, on an
    error, none.

    Raises:
        DatasetError: With every mistake in the landing zone's files.
    """
    if not 0 <= held_out_fraction < 1:
        raise ValueError(f"held_out_fraction is {held_out_fraction}; it is at least 0 and less than 1.")
    statistics = Statistics(tokenizer_file)
    mistakes, remarks = Mistakes(), Remarks()
    sources = find_sources(zone, stage, mistakes, remarks)
    if not sources:
        mistakes.refuse()
    with _partial(output) as partial:
        rows = Rows(partial / "rows.jsonl", sources, seed)
        for source in sources:
            rows.read(source, statistics, mistakes, remarks, train_on_prompt=train_on_prompt)
        for source in sources:
            zone.checked(source.path)
        mistakes.refuse()
        held_out = held_out_keys(rows.keys, held_out_fraction)
        samples = rows.write(partial, held_out)
        held_out_rows = sum(key in held_out for key in rows.keys)
        counted = statistics.result(
            distinct_rows=len(set(rows.keys)),
            held_out_rows=held_out_rows,
            cutoff_len=cutoff_len,
            files=_files(zone, sources, rows.of_file),
            unused_columns=sorted({column for source in sources for column in source.unused_columns}),
            unlisted_files=unlisted(zone, sources),
        )
        _write_json(partial / STATISTICS, counted.model_dump())
        _write_json(partial / DATASET_INFO, _dataset_info(rows.target, held_out_rows))
    whole = combined(source.layout for source in sources)
    return PreparedDataset(
        format=(whole or rows.target).format,
        rows=len(rows.keys),
        train_rows=counted.train_rows,
        held_out_rows=held_out_rows,
        statistics=counted,
        remarks=remarks.all(zone.path),
        samples=samples,
    )


def _dataset_info(target: Layout, held_out_rows: int) -> dict[str, object]:
    names = [TRAIN, HELD_OUT] if held_out_rows else [TRAIN]
    return {name: target.entry(f"{name}.jsonl") for name in names}


def _files(zone: LandingZone, sources: tuple[Source, ...], rows: dict[Path, int]) -> list[SourceFile]:
    return [
        SourceFile(
            file=source.path.relative_to(zone.path).as_posix(),
            rows=rows[source.path],
            sha256=zone.sha256(source.path),
        )
        for source in sources
    ]


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


@contextmanager
def _partial(output: Path) -> Iterator[Path]:
    """A folder whose files move into `output` at the end, if nothing went wrong."""
    partial = output / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    made = not output.exists()
    try:
        partial.mkdir(parents=True)
        yield partial
        (output / f"{HELD_OUT}.jsonl").unlink(missing_ok=True)
        for file in partial.iterdir():
            file.replace(output / file.name)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise mistake(output, "no space is left on the disk for the prepared rows; free some") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if made and output.exists() and not any(output.iterdir()):
            output.rmdir()
