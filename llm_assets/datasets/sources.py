"""Which files make up a dataset, and how each is to be read for the stage of the recipe."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llm_assets.datasets.dataset_info import ListedFile, listed_files
from llm_assets.datasets.landing_zone import (
    DATASET_INFO,
    SUFFIXES,
    Stamp,
    dataset_files,
    inside,
    refuse_changed,
    stamp,
)
from llm_assets.datasets.layouts import FORMATS_OF_STAGE, Layout, infer
from llm_assets.datasets.mistakes import Mistakes, mistake
from llm_assets.datasets.reading import Survey, survey

EXAMPLE_INFO = '{"my_data": {"file_name": "%s", "columns": {"prompt": "question", "response": "answer"}}}'


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of the dataset: how it is read, what it was when first looked at, and what of it is not used."""

    path: Path
    layout: Layout
    seen: Stamp
    unused_columns: tuple[str, ...]

    def refuse_changed(self) -> None:
        """Raises DatasetError if the file is no longer what it was."""
        refuse_changed(self.path, self.seen)


def find_sources(landing_zone: Path, stage: str, mistakes: Mistakes) -> tuple[Source, ...]:
    """The files of the dataset, in the order of their names; a file that no layout fits is a mistake.

    Raises:
        DatasetError: There is no file, or `dataset_info.json` cannot be followed.
    """
    if stage not in FORMATS_OF_STAGE:
        raise mistake(
            landing_zone, f"no dataset is known for stage {stage!r}; stages are {', '.join(FORMATS_OF_STAGE)}"
        )
    listed = listed_files(landing_zone)
    files = [file.path for file in listed] if listed is not None else _files(landing_zone)
    declared = {file.path: file for file in listed or ()}
    sources = [_source(path, declared.get(path), stage, mistakes) for path in files]
    return tuple(source for source in sources if source is not None)


def unlisted(landing_zone: Path, sources: Sequence[Source]) -> list[str]:
    """Data files right in the landing zone that `dataset_info.json` does not name."""
    used = {source.path for source in sources}
    return [path.name for path in dataset_files(landing_zone) if path not in used]


def _files(landing_zone: Path) -> list[Path]:
    wanted = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
    if not landing_zone.is_dir():
        raise mistake(landing_zone, f"there is no such folder; make it and put the dataset there ({wanted})")
    files = [inside(path, landing_zone) for path in dataset_files(landing_zone)]
    if not files:
        others = sorted(path.name for path in landing_zone.iterdir())
        found = f"only {', '.join(others[:5])}" if others else "nothing"
        raise mistake(landing_zone, f"holds no dataset file but {found}; put {wanted} there")
    return files


def _source(path: Path, listed: ListedFile | None, stage: str, mistakes: Mistakes) -> Source | None:
    seen, broken = stamp(path), Mistakes()
    found = survey(path, broken)
    if not found.columns:
        mistakes.extend(broken)
        if not broken.total:
            refuse_changed(path, seen)
            mistakes.add(path, None, "", "holds no row; put rows in or take the file away")
        return None
    layout = (
        infer(found.columns, found.first_row, stage) if listed is None else _declared(listed, found, mistakes)
    )
    if layout is None:
        if listed is None:
            mistakes.add(path, None, "", _no_format(path, found))
        return None
    problem = _misfit(layout, stage)
    if problem:
        mistakes.add(path, None, "", problem)
        return None
    unused = tuple(column for column in found.columns if column not in layout.columns.values())
    return Source(path=path, layout=layout, seen=seen, unused_columns=unused)


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


def _no_format(path: Path, found: Survey) -> str:
    formats = "instruction and output, conversations, messages, instruction with chosen and rejected, or text"
    return (
        f"the columns {', '.join(found.columns)} are those of no known format ({formats}); "
        f"name yours in {DATASET_INFO}: {EXAMPLE_INFO % path.name}"
    )


def _misfit(layout: Layout, stage: str) -> str | None:
    formats = FORMATS_OF_STAGE[stage]
    if layout.format in formats:
        return None
    fitting = " or ".join(other for other, taken in FORMATS_OF_STAGE.items() if layout.format in taken)
    return (
        f"holds rows of the {layout.format} format ({', '.join(layout.columns.values())}), but the recipe's "
        f"stage {stage} takes {' or '.join(formats)}; change the columns, or the stage to {fitting}"
    )
