"""A landing zone's own `dataset_info.json`, in LLaMA-Factory's format: which files, in which layout.

All entries whose files are there are taken, since a recipe of this platform names no datasets; the others are
not looked at, so LLaMA-Factory's own file may be copied whole. As in LLaMA-Factory, an entry that has
`columns` (or `tags`) has just those, and one that has none has the format's usual ones.
Not taken: datasets of a hub, scripts, and columns of images, videos or audios.
"""

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_assets.datasets.landing_zone import DATASET_INFO, SUFFIXES, LandingZone
from llm_assets.datasets.layouts import COLUMNS, OPENAI_TAGS, Formatting, Layout, Tags
from llm_assets.datasets.mistakes import DatasetError, Mistakes, mistake

REMOTE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
MEDIA = ("images", "videos", "audios")
SHOWN_ENTRIES = 3
MOST_BYTES = 4_000_000  # LLaMA-Factory's own has 30,000
MOST_ENTRIES = 1000
LONGEST_NAME_BYTES = 255
SAVED_TO_DISK = (
    "is of a dataset that `save_to_disk` of the library `datasets` wrote; take this file away and write "
    "Parquet instead: load_from_disk(folder).to_parquet('rows.parquet')"
)
USUAL_COLUMNS: dict[Formatting, dict[str, str]] = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "sharegpt": {"messages": "conversations"},
    "openai": {"messages": "messages"},
}


class Entry(BaseModel):
    """One entry, as people write it; what it means is in LLaMA-Factory's `data/README.md`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file_name: str
    formatting: Literal["alpaca", "sharegpt", "openai", "sharegpt_masked"] = "alpaca"
    ranking: bool = False
    columns: dict[str, str | None] | None = None
    tags: dict[str, str | None] | None = None
    split: Literal["train"] = "train"
    subset: None = None
    folder: None = None
    num_samples: None = Field(default=None, description="LLaMA-Factory would draw them at random")
    file_sha1: str | None = Field(default=None, description="in entries of older versions; not looked at")


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """A file of the dataset and the layout that was declared for it; `written` if by naming its columns."""

    path: Path
    layout: Layout
    entry: str
    written: bool


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What `dataset_info.json` says; `absent` are the entries whose rows are not here."""

    files: tuple[ListedFile, ...]
    absent: tuple[str, ...]


def listed_files(zone: LandingZone) -> Listing | None:
    """The files that `dataset_info.json` lists and that are here, by name; None where there is no such file.

    Raises:
        DatasetError: It is not JSON, lists nothing that is here, or says something that cannot be followed.
    """
    path = zone.path / DATASET_INFO
    if zone.find(path) is None:
        return None
    mistakes = Mistakes()
    listed: dict[Path, ListedFile] = {}
    absent: dict[str, tuple[str, str]] = {}
    for name, said in _entries(zone, path).items():
        why = _why_absent(zone, said)
        if why is not None:
            absent[name] = why
            continue
        for file in _files_of_entry(zone, path, name, said, mistakes):
            if file.path in listed:
                mistakes.add(
                    path, None, name, f"lists {file.path.name}, as {listed[file.path].entry} does; keep one"
                )
            listed[file.path] = file
    if not listed and not mistakes.total:
        _add_absent(zone, path, absent, mistakes)
    mistakes.refuse()
    return Listing(files=tuple(listed[file] for file in sorted(listed)), absent=tuple(absent))


def _why_absent(zone: LandingZone, said: object) -> tuple[str, str] | None:
    """Field and reason if the entry's rows are not in the landing zone; None if they are, or may be."""
    if not isinstance(said, dict):
        return None
    file_name = said.get("file_name")
    named = isinstance(file_name, str) and _why_no_name(zone, file_name) is None
    there = named and zone.find(_place(zone, str(file_name))) is not None
    remote = [key for key in REMOTE if key in said]
    if remote and not there:
        return remote[0], "is not taken; put the rows into a file beside this one"
    return ("file_name", f"{file_name}: does not exist; put the file there") if named and not there else None


def _place(zone: LandingZone, file_name: str) -> Path:
    return Path(os.path.normpath(zone.path / file_name))


def _why_no_name(zone: LandingZone, file_name: str) -> str | None:
    """What keeps a text from naming anything in the landing zone."""
    place = _place(zone, file_name)
    if not place.is_relative_to(zone.path):
        return f"leads out of the landing zone; copy the file into {zone.path}"
    if "\0" in file_name or max(len(os.fsencode(part)) for part in place.parts) > LONGEST_NAME_BYTES:
        return f"is not the name of a file: it holds a NUL, or has more than {LONGEST_NAME_BYTES} bytes"
    return None


def _add_absent(
    zone: LandingZone, path: Path, absent: Mapping[str, tuple[str, str]], mistakes: Mistakes
) -> None:
    """Nothing that is listed is here: each of a few entries is named, of many the number."""
    if len(absent) > SHOWN_ENTRIES:
        mistakes.add(path, None, "", f"none of the files that its {len(absent)} entries name is here")
    else:
        for name, (field, problem) in absent.items():
            mistakes.add(path, None, f"{name}.{field}", problem)
    here = [file.name for file in zone.data_files(zone.path)]
    if here:
        entry = json.dumps({"my_data": {"file_name": here[0]}})
        listed = ", ".join(here[:SHOWN_ENTRIES])
        mistakes.add(path, None, "", f"does not list {listed}; add {entry}, or take this file away")


def _entries(zone: LandingZone, path: Path) -> dict[str, object]:
    with zone.open(path) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise mistake(path, f"has more than {MOST_BYTES:,} bytes; leave out the entries of other datasets")
    try:
        entries = json.loads(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise mistake(path, f"is not JSON: {error.msg}", line=error.lineno) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise mistake(path, "is not JSON; save it as UTF-8 text that holds one object") from error
    if isinstance(entries, dict) and {"features", "splits"} & entries.keys():
        raise mistake(path, SAVED_TO_DISK)
    if not isinstance(entries, dict) or not entries:
        raise mistake(path, 'lists no dataset; write {"my_data": {"file_name": "my_data.jsonl"}}')
    if len(entries) > MOST_ENTRIES:
        problem = f"has {len(entries):,} entries, and at most {MOST_ENTRIES:,} are read"
        raise mistake(path, f"{problem}; leave out those of other datasets")
    return entries


def _files_of_entry(
    zone: LandingZone, path: Path, name: str, said: object, mistakes: Mistakes
) -> list[ListedFile]:
    before = mistakes.total
    entry = _entry(path, name, said, mistakes)
    layout = _layout(path, name, entry, mistakes) if entry else None
    if entry is None or layout is None or mistakes.total > before:
        return []
    written = entry.columns is not None
    try:
        found = _files(zone, entry.file_name)
    except DatasetError as error:
        named = entry.file_name if entry.file_name.isprintable() else repr(entry.file_name)
        mistakes.add(path, None, f"{name}.file_name", f"{named}: {error.mistakes[0].problem}")
        return []
    if not found:
        mistakes.add(
            path, None, f"{name}.file_name", f"{entry.file_name} holds none of {', '.join(SUFFIXES)}"
        )
    return [ListedFile(path=file, layout=layout, entry=name, written=written) for file in found]


def _files(zone: LandingZone, file_name: str) -> list[Path]:
    problem = _why_no_name(zone, file_name)
    if problem is not None:
        raise mistake(zone.path / DATASET_INFO, problem)
    path = _place(zone, file_name)
    entry = zone.find(path) if path != zone.path else None
    if path == zone.path or (entry is not None and entry.is_folder):
        return [zone.checked(file) for file in zone.data_files(path)]
    zone.checked(path)
    return [path] if path.name.lower().endswith(SUFFIXES) else []


def _entry(path: Path, name: str, said: object, mistakes: Mistakes) -> Entry | None:
    try:
        return Entry.model_validate(said)
    except ValidationError as error:
        for detail in error.errors():
            field = ".".join([name, *map(str, detail["loc"])])
            mistakes.add(path, None, field, _problem(detail["type"], detail["msg"], str(detail["loc"][-1:])))
        return None


def _problem(kind: str, message: str, key: str) -> str:
    if kind == "extra_forbidden" and key.strip("(),'") in REMOTE:
        return "is not taken beside a file; leave it out"
    if kind == "extra_forbidden":
        return f"unknown key; {_nearest(key, Entry.model_fields)}"
    if kind == "none_required":
        return "is not taken by this platform; leave it out"
    return message


def _layout(path: Path, name: str, entry: Entry, mistakes: Mistakes) -> Layout | None:
    columns = USUAL_COLUMNS[_formatting(entry)] if entry.columns is None else entry.columns
    for column in columns:
        if column in MEDIA and columns[column]:
            mistakes.add(path, None, f"{name}.columns.{column}", "is not taken: models of text only")
        elif column not in COLUMNS and column not in MEDIA:
            mistakes.add(
                path, None, f"{name}.columns.{column}", f"unknown column; {_nearest(column, COLUMNS)}"
            )
    known_tags = [tag.name for tag in fields(Tags)]
    for tag in entry.tags or {}:
        if tag not in known_tags:
            mistakes.add(path, None, f"{name}.tags.{tag}", f"unknown tag; {_nearest(tag, known_tags)}")
    named = {column: value for column, value in columns.items() if column in COLUMNS and value}
    problem = _contradiction(entry, named)
    if problem:
        mistakes.add(path, None, f"{name}.columns", problem)
        return None
    return _used(entry, named)


def _used(entry: Entry, named: dict[str, str]) -> Layout:
    """The layout with only those columns that LLaMA-Factory reads in this format."""
    if entry.formatting == "alpaca":
        unread = {"messages"} | ({"response"} if entry.ranking else {"chosen", "rejected"})
    else:
        unread = {"prompt", "query", "response", "history"} | (
            set() if entry.ranking else {"chosen", "rejected"}
        )
    kept: dict[str, Any] = {column: value for column, value in named.items() if column not in unread}
    return Layout(formatting=_formatting(entry), ranking=entry.ranking, tags=_tags(entry), **kept)


def _formatting(entry: Entry) -> Formatting:
    """What was prepared here can be read like anything else."""
    return "sharegpt" if entry.formatting == "sharegpt_masked" else entry.formatting


def _tags(entry: Entry) -> Tags:
    usual = OPENAI_TAGS if entry.formatting == "openai" else Tags()
    if entry.tags is None:
        return usual
    known = {tag.name: entry.tags.get(tag.name) for tag in fields(Tags) if tag.name in entry.tags}
    role_tag, content_tag = known.pop("role_tag", None), known.pop("content_tag", None)
    nameless: dict[str, str | None] = dict.fromkeys(
        ("user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag")
    )
    return Tags(
        role_tag=role_tag or usual.role_tag,
        content_tag=content_tag or usual.content_tag,
        **(nameless | known),
    )


def _contradiction(entry: Entry, named: dict[str, str]) -> str | None:
    if entry.ranking and not {"chosen", "rejected"} <= set(named):
        return "`ranking: true` needs the columns chosen and rejected"
    if entry.ranking and "kto_tag" in named:
        return "`ranking: true` and kto_tag exclude each other; keep one"
    if entry.formatting != "alpaca" and "messages" not in named:
        return f"`formatting: {entry.formatting}` needs the column messages"
    if entry.formatting == "alpaca" and not named.keys() & {"prompt", "query"}:
        return "`formatting: alpaca` needs the column prompt"
    return None


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word.strip("(),'"), list(known), n=1)
    return f"did you mean {near[0]}?" if near else "known are " + ", ".join(known)
