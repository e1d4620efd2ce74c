"""Which files make up a dataset, and how each is to be read for the stage of the recipe."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llm_assets.datasets.column_hints import hint
from llm_assets.datasets.dataset_info import ListedFile, listed_files
from llm_assets.datasets.landing_zone import DATASET_INFO, LandingZone
from llm_assets.datasets.layouts import FORMATS_OF_STAGE, Layout, infer
from llm_assets.datasets.messages import MEDIA
from llm_assets.datasets.mistakes import Mistakes, mistake
from llm_assets.datasets.other_files import files_of_stage, look_around
from llm_assets.datasets.reading import Survey, survey
from llm_assets.datasets.remarks import Remarks, left_out

READ = "*.json, *.jsonl, *.csv, *.parquet"
REFUSED_COLUMNS = {
    **dict.fromkeys(("images", "image", "videos", "video", "audios", "audio"), MEDIA),
    "functions": "name the column `tools`, as OpenAI does now",
}
"""Columns that change what is learned if they are followed, and are not: a row that fills one is refused."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of the dataset: how it is read, and what of it is not used."""

    zone: LandingZone
    path: Path
    layout: Layout
    unused_columns: tuple[str, ...]


def find_sources(
    zone: LandingZone, stage: str, mistakes: Mistakes, remarks: Remarks, *, most_rows: int | None = None
) -> tuple[Source, ...]:
    """The files of the dataset, in the order of their names; a file that no layout fits is a mistake.

    `most_rows`: so many rows of a file tell its columns; all do without it.

    Raises:
        DatasetError: There is no file, or `dataset_info.json` cannot be followed.
    """
    if stage not in FORMATS_OF_STAGE:
        raise mistake(
            zone.path, f"no dataset is known for stage {stage!r}; stages are {', '.join(FORMATS_OF_STAGE)}"
        )
    zone.refuse_oversized()
    declared = _declared_files(zone, remarks)
    files = _files(zone, stage, mistakes, remarks) if declared is None else list(declared)
    sources: list[Source] = []
    for path in files:
        listed = declared[path] if declared else None
        source = _source(zone, path, listed, stage, mistakes, most_rows)
        if source is not None:
            sources.append(source)
            said = [left_out(f"the column {column} is not used") for column in source.unused_columns]
            remarks.add(path, None, said)
    return tuple(sources)


def unlisted(zone: LandingZone, sources: Sequence[Source]) -> list[str]:
    """Data files right in the landing zone that are not read."""
    used = {source.path for source in sources}
    return [path.name for path in zone.data_files(zone.path) if path not in used]


def _declared_files(zone: LandingZone, remarks: Remarks) -> dict[Path, ListedFile] | None:
    listing = listed_files(zone)
    if listing is None:
        return None
    declared = {file.path: file for file in listing.files}
    for path in zone.data_files(zone.path):
        if path not in declared:
            remarks.add(path, None, [left_out(f"is not read: {DATASET_INFO} does not list it")])
    if listing.absent:
        named = ", ".join(listing.absent[:3]) + (", …" if len(listing.absent) > 3 else "")
        said = f"{len(listing.absent)} of its entries are not read, because their files are not here: {named}"
        remarks.add(zone.path / DATASET_INFO, None, [left_out(said)])
    return declared


def _files(zone: LandingZone, stage: str, mistakes: Mistakes, remarks: Remarks) -> list[Path]:
    wanted = f"{READ}, *.txt" if stage == "pt" else READ
    files = [zone.checked(path) for path in files_of_stage(zone, stage, remarks)]
    if files:
        look_around(zone, set(files), stage, mistakes, remarks)
        return files
    foreign = Mistakes()
    look_around(zone, set(), stage, foreign, Remarks())
    foreign.refuse()
    others = [entry.path.name for entry in zone.entries(zone.path)]
    found = f"only {', '.join(others[:5])}" if others else "nothing"
    raise mistake(zone.path, f"holds no dataset file but {found}; put {wanted} there")


def _source(
    zone: LandingZone,
    path: Path,
    listed: ListedFile | None,
    stage: str,
    mistakes: Mistakes,
    most_rows: int | None,
) -> Source | None:
    broken = Mistakes()
    found = survey(zone, path, broken, most_rows=most_rows)
    if not found.columns:
        mistakes.extend(broken)
        if not broken.total:
            zone.checked(path)
            mistakes.add(path, None, "", "holds no row; put rows in or take the file away")
        return None
    layout = (
        infer(found.columns, found.first_row, stage) if listed is None else _declared(listed, found, mistakes)
    )
    if layout is None:
        if listed is None:
            mistakes.add(path, None, "", _no_format(path, stage, found))
        return None
    problem = _misfit(path, layout, stage, found)
    if problem:
        mistakes.add(path, None, "", problem)
        return None
    unused = tuple(column for column in found.columns if column not in layout.columns.values())
    return Source(zone=zone, path=path, layout=layout, unused_columns=unused)


def _declared(listed: ListedFile, found: Survey, mistakes: Mistakes) -> Layout | None:
    """The layout of the entry; usual columns that the file lacks are left out, written ones are missed."""
    absent = {column: name for column, name in listed.layout.columns.items() if name not in found.columns}
    if not listed.written:
        return replace(listed.layout, query=None if "query" in absent else listed.layout.query)
    for column, name in absent.items():
        said = f"{DATASET_INFO} names {name!r} as {column} of {listed.entry}"
        mistakes.add(
            listed.path, None, name, f"missing column ({said}); the file has {', '.join(found.columns)}"
        )
    return None if absent else listed.layout


def _no_format(path: Path, stage: str, found: Survey) -> str:
    wrap = next((name for name, value in found.first_row.items() if _is_list_of_rows(value)), None)
    columns = ", ".join(found.columns)
    if wrap is not None:
        return (
            f"is one object ({columns}), not rows; its rows seem to lie under {wrap!r}: write that list alone"
        )
    chosen = found.first_row.get("chosen")
    if stage in ("dpo", "rm") and isinstance(chosen, list):
        return (
            f"the columns {columns} hold whole conversations; give what is asked as `messages`, and as "
            '`chosen` and `rejected` one message each: {"role": "assistant", "content": "…"}'
        )
    return (
        f"the columns {columns} are those of no format of the recipe's stage {stage}; name what they hold "
        f"in {DATASET_INFO}: {hint(path.name, stage, found.first_row)}"
    )


def _is_list_of_rows(value: Any) -> bool:
    """A list of objects that are no messages."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    return not {"role", "from", "content", "value"} & value[0].keys()


def _misfit(path: Path, layout: Layout, stage: str, found: Survey) -> str | None:
    formats = FORMATS_OF_STAGE[stage]
    if layout.format in formats:
        return None
    fitting = " or ".join(other for other, taken in FORMATS_OF_STAGE.items() if layout.format in taken)
    entry = hint(path.name, stage, found.first_row)
    columns = "change the columns" if "<" in entry else f"name its columns in {DATASET_INFO}: {entry}"
    return (
        f"holds rows of the {layout.format} format ({', '.join(layout.columns.values())}), but the recipe's "
        f"stage {stage} takes {' or '.join(formats)}; change the stage to {fitting}, or {columns}"
    )
