"""What MLflow shows of a line, brought to what the signed log says, or compared with it.

MLflow is for people to look at: aliases, a tag for each move and for each fact of a version, and in the
model's description its history as a table. Whoever reaches MLflow can change all of it, and nothing follows.
"""

import html
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from resources.mlflow.move_log import (
    ALIASES,
    HISTORY_TAG,
    TRAFFIC_TAG,
    VERSION_TAG,
    Entry,
    Line,
    parsed,
    time_of,
)
from resources.mlflow.promotion import history
from resources.mlflow.versions import DESCRIPTION_CHARACTERS, address_of, every_version

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

MOVES = (HISTORY_TAG, TRAFFIC_TAG)
OF_A_VERSION = ("metric.", "engine.", "dagster_run.", "promoted_")
"""How tags begin that only the platform writes; others are people's own notes."""
MOVES_HEADING = "## Promotions"
RESTORED = "Written anew from the signed log of promotions. `llm-assets run` writes what else is known of it."


def find_model(client: "MlflowClient", name: str) -> "RegisteredModel | None":
    """The registered model as MLflow has it, or None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def versions_in_mlflow(client: "MlflowClient", line: Line) -> dict[int, "ModelVersion"]:
    """By number; none where MLflow has no such model."""
    return {int(version.version): version for version in every_version(client, line.name)}


def number_in_mlflow(line: Line, label: str, versions: Mapping[int, "ModelVersion"]) -> int | None:
    """The number of a version in MLflow; None where it is missing there.

    What was made and never came into the log, because that was cut off, is taken.
    """
    source, logged = _source(line, label), line.versions.get(label)
    there = {number for number, version in versions.items() if version.source == source}
    if logged and logged.number in there:
        return logged.number
    return min(there - {each.number for each in line.versions.values()}, default=None)


def make_version(
    client: "MlflowClient",
    line: Line,
    label: str,
    tags: Mapping[str, str],
    *,
    run_id: str | None = None,
    description: str = RESTORED,
) -> int:
    made = client.create_model_version(
        line.name,
        _source(line, label),
        run_id=run_id,
        tags=dict(tags),
        description=description[:DESCRIPTION_CHARACTERS],
        await_creation_for=0,
    )
    return int(made.version)


def remove_foreign(client: "MlflowClient", line: Line) -> None:
    """Takes out of MLflow the versions that are in no log."""
    logged = {each.number for each in line.versions.values()}
    for number in versions_in_mlflow(client, line).keys() - logged:
        client.delete_model_version(line.name, str(number))


def show(client: "MlflowClient", line: Line, *, since: Line | None = None) -> None:
    """Brings aliases, tags and the table of moves to what the log says. What is right already stays.

    The registered model and every version are there; see `number_in_mlflow`.

    Args:
        since: The line as it was shown before: only what is different from then is written, so that what
            somebody changed by hand stays to be seen. None: everything.
    """
    before = since or Line(name=line.name, entries={})
    known, all_of_it = client.get_registered_model(line.name), since is None
    wanted = _changed(_model_tags(before), _model_tags(line))
    for tag, text in wanted.items():
        if known.tags.get(tag) != text:
            client.set_registered_model_tag(line.name, tag, text)
    for tag in _foreign(known.tags, _model_tags(line), MOVES) if all_of_it else ():
        client.delete_registered_model_tag(line.name, tag)
    _show_versions(client, before, line, all_of_it=all_of_it)
    described = _described(known.description or "", line)
    if known.description != described:
        client.update_registered_model(line.name, described)
    for alias in ALIASES:
        number, told = line.aliases.get(alias), known.aliases.get(alias)
        if number == before.aliases.get(alias) and not all_of_it:
            continue
        if number is None and told is not None:
            client.delete_registered_model_alias(line.name, alias)
        elif number is not None and (told is None or int(told) != number):
            client.set_registered_model_alias(line.name, alias, str(number))


def _show_versions(client: "MlflowClient", before: Line, line: Line, *, all_of_it: bool) -> None:
    versions = versions_in_mlflow(client, line)
    for label, logged in line.versions.items():
        if logged.number not in versions:
            continue  # deleted by hand, and nothing of it has changed
        number, wanted, told = str(logged.number), version_tags(line, label), versions[logged.number].tags
        changed = _changed(version_tags(before, label) if label in before.versions else {}, wanted)
        for tag, text in changed.items():
            if told.get(tag) != text:
                client.set_model_version_tag(line.name, number, tag, text)
        for tag in _foreign(told, wanted, OF_A_VERSION) if all_of_it else ():
            client.delete_model_version_tag(line.name, number, tag)


def version_tags(line: Line, label: str) -> dict[str, str]:
    """What is known of a version, and of its last promotion."""
    tags = dict(line.versions[label].tags)
    moves = [move for move in history(line) if line.label(move.to, move.at) == label]
    if moves:
        last = moves[-1]
        tags |= {
            "promoted_by": last.who,
            "promoted_why": last.why,
            "promoted_at": last.at,
            "promoted_overriding": "\n".join(last.overridden),
        }
    return tags


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in now.items() if before.get(name) != text}


def differences(
    known: "RegisteredModel | None", versions: Mapping[int, "ModelVersion"], line: Line
) -> Iterator[str]:
    """What MLflow says otherwise than the log, a sentence for each."""
    if known is None:
        if line.versions:
            count = len(line.versions)
            yield f"MLflow has no model {line.name} any more, the signed log has {count} versions of it"
        return
    told = {alias: int(number) for alias, number in known.aliases.items()}
    for alias in ALIASES:
        if told.get(alias) != line.aliases.get(alias):
            yield (
                f"MLflow's alias {alias!r} of {line.name} is {_version(told.get(alias))}, "
                f"the signed log says {_version(line.aliases.get(alias))}"
            )
    yield from _tag_differences(known.tags, _model_tags(line), MOVES, of=line.name)
    for logged in sorted(line.versions.values(), key=lambda each: each.number):
        there, what = versions.get(logged.number), f"version {logged.number} ({logged.label}) of {line.name}"
        if there is None:
            yield f"MLflow has no {what} any more, the signed log has it"
        elif there.source != _source(line, logged.label):
            yield f"MLflow's {what} is {there.source}, the signed log says {_source(line, logged.label)}"
        else:
            wanted = version_tags(line, logged.label)
            yield from _tag_differences(there.tags, wanted, OF_A_VERSION, of=what)
    for number in sorted(versions.keys() - {each.number for each in line.versions.values()}):
        yield f"MLflow's version {number} of {line.name} is in no signed log: no run registered it"


def _model_tags(line: Line) -> dict[str, str]:
    """The registered model's own tags, and one for each move and each change of the traffic."""
    registered = line.of(VERSION_TAG)
    about = {"tenant": line.tenant, "model": line.model, **registered[-1][1]["about"]} if registered else {}
    moves = [*line.of(HISTORY_TAG), *line.of(TRAFFIC_TAG)]
    return about | {tag: json.dumps(value) for tag, value in moves}


def _tag_differences(
    told: Mapping[str, str], wanted: Mapping[str, str], ours: tuple[str, ...], *, of: str
) -> Iterator[str]:
    for tag in sorted(wanted):
        if tag not in told:
            yield f"MLflow's tag {tag!r} of {of} is gone, the signed log has it"
        elif not _same(told[tag], wanted[tag]):
            yield f"MLflow's tag {tag!r} of {of} was altered: the signed log has {_short(wanted[tag])}"
    for tag in _foreign(told, wanted, ours):
        yield f"MLflow's tag {tag!r} of {of} is in no signed log: it was set by hand"


def _same(told: str, wanted: str) -> bool:
    return told == wanted or (wanted.startswith("{") and parsed(told) == parsed(wanted))


def _foreign(told: Mapping[str, str], wanted: Mapping[str, str], ours: tuple[str, ...]) -> list[str]:
    return sorted(tag for tag in told.keys() - wanted.keys() if tag.startswith(ours))


def _described(description: str, line: Line) -> str:
    """The description with the newest moves as a table at its end, as many as MLflow's column takes."""
    about = description.partition(MOVES_HEADING)[0].rstrip()
    rows = [_row(line, tag, value) for tag, value in reversed(line.of(HISTORY_TAG))]
    if not rows:
        return about
    text = "\n".join(
        [
            MOVES_HEADING,
            "",
            "| When (UTC) | What | From | To | Digest | Who | Why |",
            "|---|---|---|---|---|---|---|",
        ]
    )
    about = about[: DESCRIPTION_CHARACTERS // 2]
    for row in rows:
        if len(about) + len(text) + len(row) + 3 > DESCRIPTION_CHARACTERS:
            break
        text = f"{text}\n{row}"
    return f"{about}\n\n{text}".lstrip()


def _row(line: Line, tag: str, move: Entry) -> str:
    at, to = time_of(tag), line.label(move["to"], time_of(tag))
    before = "" if move["production"] is None else _number(line, line.label(move["production"], at))
    digest = f"`{line.versions[to].digest[:SHORT_DIGEST]}`" if to in line.versions else ""
    cells = (
        at[:19].replace("T", " "),
        move["action"],
        before,
        _number(line, to),
        digest,
        move["who"],
        move["why"],
    )
    return "| " + " | ".join(_cell(str(cell)) for cell in cells) + " |"


def _number(line: Line, label: str) -> str:
    return str(line.versions[label].number) if label in line.versions else label


SHORT_DIGEST = len("sha256:") + 12


def _cell(text: str) -> str:
    flat = " ".join(html.escape(text, quote=False).split()).replace("\\", "\\\\").replace("|", "\\|")
    return flat if len(flat) <= 200 else f"{flat[:199]}…"


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:79]}…")


def _source(line: Line, label: str) -> str:
    return address_of(line.tenant, line.model, label)


def _version(number: int | None) -> str:
    return "no version" if number is None else f"version {number}"
