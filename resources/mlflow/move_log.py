"""The signed log of what was promoted: what MLflow shows can be changed by whoever reaches it, this cannot.

A hash-chained, signed log per tenant, of the same making as the audit log (`resources/audit/chain.py`) but
never deleted from: each record is one move of `production` or one change of the traffic, by the tag that
MLflow has of it (`history.<UTC time>`, `traffic.<UTC time>`). The last move in the log is what is in
production, whatever MLflow's aliases say; `differences` names where they say something else.

An installation that is older than its log adopts MLflow's state once, as records that say so (`adopted`);
from then on a line without a record has nothing in production.

Does not cover: somebody who can write to the state folder and has the signing key.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.audit.chain import Chain, SegmentLimits
from resources.audit.places import PLATFORM, AuditError, AuditPlaces
from resources.audit.run_time import RunTime
from resources.audit.segments import record_in, segments_in
from resources.audit.statements import Signing
from resources.audit.verifying import verify_tenant
from resources.mlflow.client import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel
    from mlflow.store.entities.paged_list import PagedList

CANDIDATE = "candidate"
PRODUCTION = "production"
PREVIOUS = "previous"
HISTORY_TAG = "history."
TRAFFIC_TAG = "traffic."
MOVE_TAG = "move"
MODELS_A_PAGE = 1000
LOGGED_TAGS = (HISTORY_TAG, TRAFFIC_TAG)
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"  # a tag's name may hold no plus sign
FAULTS_NAMED = 3
LIMITS = SegmentLimits(age_s=366 * 86400)  # a day with a move is a segment


@dataclass(frozen=True, kw_only=True)
class Line:
    """A registered model as the log has it: `production`, `previous` and the tags of moves are the log's."""

    name: str
    aliases: Mapping[str, int]
    tags: Mapping[str, str]
    logged: frozenset[str]  # which of the tags are in the log


@dataclass(frozen=True, kw_only=True)
class MoveLog:
    """The log in one folder, signed with the key in `keys`."""

    folder: Path
    keys: Path

    @property
    def begun(self) -> bool:
        return any(segments_in(self._places.log(PLATFORM)))

    def begin(self, client: "MlflowClient", lines: Callable[[], Iterable["RegisteredModel"]]) -> None:
        """Adopts what MLflow says is in production, once."""
        if self.begun:
            return
        with self._places.lock(PLATFORM):
            if self.begun:
                return
            adopted = 0
            for line in lines():
                for tag, value in _standing(line):
                    self.record(line.name, tag, value, adopted=True)
                    client.set_registered_model_tag(line.name, tag, json.dumps(value))
                    adopted += 1
            began = {"id": "began", "kind": "event", "event": "began", "adopted": adopted}
            self._append(PLATFORM, began)

    def record(self, name: str, tag: str, value: Mapping[str, Any], *, adopted: bool = False) -> None:
        """Seals one move or change of the traffic; this is when it happens.

        Raises:
            RegistryError: The disk does not take it, so it did not happen.
        """
        tenant = _tenant(name)
        entry = {"id": f"{name}:{tag}", "kind": "move", "line": name, "tag": tag, "value": dict(value)}
        try:
            with self._places.lock(tenant):
                self._append(tenant, entry | ({"adopted": True} if adopted else {}))
        except (OSError, AuditError) as error:
            raise RegistryError(f"{name}: the signed log of promotions was not written. {error}") from error

    def line(self, line: "RegisteredModel") -> Line:
        """What MLflow has of it, with what the log has in the place of what can be changed by hand.

        Raises:
            RegistryError: The log was altered; nothing in it can be relied on.
        """
        return _line(line, self._tags(_tenant(line.name)).get(line.name, {}))

    def lines(self, lines: Iterable["RegisteredModel"]) -> list[Line]:
        """As `line`, of many; each tenant's log is read once."""
        logs: dict[str, dict[str, dict[str, str]]] = {}
        found = []
        for line in lines:
            tenant = _tenant(line.name)
            if tenant not in logs:
                logs[tenant] = self._tags(tenant)
            found.append(_line(line, logs[tenant].get(line.name, {})))
        return found

    def _tags(self, tenant: str) -> dict[str, dict[str, str]]:
        """Every move and change of the traffic, by line and tag."""
        tags: dict[str, dict[str, str]] = {}
        for record in self._records(tenant):
            if record.get("kind") == "move":
                tags.setdefault(record["line"], {})[record["tag"]] = json.dumps(record["value"])
        return tags

    def _records(self, tenant: str) -> Iterator[dict[str, Any]]:
        folder = self._places.log(tenant)
        if not folder.is_dir():
            return
        with self._places.lock(tenant):
            faults = verify_tenant(self._places, tenant, Signing(self.keys), locked=True).faults
            if faults:
                told = "; ".join(
                    f"{each.segment}:{each.line}: {each.problem}" for each in faults[:FAULTS_NAMED]
                )
                raise RegistryError(
                    f"The signed log of {tenant}'s promotions in {folder} was altered: {told}. What is live "
                    "goes on; put the folder back from a backup before anything is promoted."
                )
            for segment in segments_in(folder):
                for line in segment.path.read_bytes().splitlines(keepends=True):
                    yield record_in(line)

    def _append(self, tenant: str, entry: dict[str, Any]) -> None:
        signing = Signing(self.keys)
        run_time = RunTime(places=self._places, signing=signing)
        Chain(self._places, tenant, signing, run_time, LIMITS).append([entry])

    @property
    def _places(self) -> AuditPlaces:
        return AuditPlaces(folder=self.folder)


class LoggedClient:
    """An MLflow client whose registered models are `Line`s: as the log has them."""

    def __init__(self, client: "MlflowClient", log: MoveLog) -> None:
        self._client, self._log = client, log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get_registered_model(self, name: str) -> Line:
        return self._log.line(self._client.get_registered_model(name))

    def search_registered_models(self, **options: Any) -> "PagedList[Line]":
        from mlflow.store.entities.paged_list import PagedList

        page = self._client.search_registered_models(**options)
        return PagedList(self._log.lines(page), page.token)

    def restore(self, name: str) -> None:
        """Writes the tags of moves as the log has them, and removes those that it has not."""
        known = self._client.get_registered_model(name)
        line = self._log.line(known)
        for tag in known.tags.keys() - line.tags.keys():
            self._client.delete_registered_model_tag(name, tag)
        for tag in line.logged:
            self._client.set_registered_model_tag(name, tag, line.tags[tag])
        if PREVIOUS in known.aliases and PREVIOUS not in line.aliases:
            self._client.delete_registered_model_alias(name, PREVIOUS)
        if PRODUCTION in known.aliases and PRODUCTION not in line.aliases:
            self._client.delete_registered_model_alias(name, PRODUCTION)

    def differences(self, name: str) -> list[str]:
        """What MLflow itself says otherwise than the log, of a line."""
        known = self._client.get_registered_model(name)
        return list(differences(known, self._log.line(known)))

    def all_differences(self) -> list[str]:
        """As `differences`, of every line that nobody moves at this moment."""
        known, token = [], None
        while True:
            page = self._client.search_registered_models(max_results=MODELS_A_PAGE, page_token=token)
            known += [line for line in page if MOVE_TAG not in line.tags]
            if not (token := page.token):
                break
        return [
            each
            for line, logged in zip(known, self._log.lines(known), strict=True)
            for each in differences(line, logged)
        ]


def time_after(last: str) -> str:
    """Now, or just after the last one: another machine's clock may be ahead of this one's."""
    now = datetime.now(UTC)
    if last:
        now = max(now, datetime.strptime(last, TIME).replace(tzinfo=UTC) + timedelta(microseconds=1))
    return now.strftime(TIME)


def differences(line: "RegisteredModel", logged: Line) -> Iterator[str]:
    """What MLflow says otherwise than the log, a sentence for each."""
    told = {alias: int(number) for alias, number in line.aliases.items()}
    for alias in (PRODUCTION, PREVIOUS):
        if told.get(alias) != logged.aliases.get(alias):
            yield (
                f"MLflow's alias {alias!r} of {line.name} is {_version(told.get(alias))}, "
                f"the signed log says {_version(logged.aliases.get(alias))}"
            )
    shown = {tag: text for tag, text in line.tags.items() if tag.startswith(LOGGED_TAGS)}
    wanted = {tag: logged.tags[tag] for tag in logged.logged}
    began = min(map(_time, logged.logged), default="")
    for tag in sorted(shown.keys() | wanted.keys(), key=_time):
        if tag not in shown:
            yield f"MLflow's tag {tag!r} of {line.name} is gone, the signed log has it"
        elif tag not in wanted:
            if _time(tag) >= began:
                yield f"MLflow's tag {tag!r} of {line.name} is in no signed log: nobody moved anything then"
        elif _parsed(shown[tag]) != json.loads(wanted[tag]):
            yield f"MLflow's tag {tag!r} of {line.name} was altered"


def _standing(line: "RegisteredModel") -> Iterator[tuple[str, dict[str, Any]]]:
    """The records that say what MLflow says now: who is in production, and who shares its traffic."""
    if PRODUCTION not in line.aliases:
        return
    production = int(line.aliases[PRODUCTION])
    moves, changes = _tagged(line.tags, HISTORY_TAG), _tagged(line.tags, TRAFFIC_TAG)
    move = next(reversed(moves.values()), None)
    if move is None or int(move["to"]) != production:
        previous = line.aliases.get(PREVIOUS)
        move = {
            "action": "promote",
            "to": production,
            "production": int(previous) if previous else None,
            "previous": None,
            "who": "llm-assets",
            "why": "MLflow's aliases when the signed log began",
            "at": time_after(""),
            "overridden": [],
        }
    yield HISTORY_TAG + move["at"], move
    for traffic_tag, change in reversed(changes.items()):
        if (change["production"], change["promotion"]) == (production, move["at"]):
            yield traffic_tag, change
        return


def _line(line: "RegisteredModel", logged: Mapping[str, str]) -> Line:
    began = min(map(_time, logged), default="")
    tags = {tag: text for tag, text in line.tags.items() if _stands(tag, began)} | dict(logged)
    own = {alias: int(of) for alias, of in line.aliases.items() if alias not in (PRODUCTION, PREVIOUS)}
    return Line(name=line.name, aliases=own | _pointed(logged), tags=tags, logged=frozenset(logged))


def _tenant(name: str) -> str:
    return name.partition(".")[0]


def _stands(tag: str, began: str) -> bool:
    """Whether MLflow's own tag counts: one of a move only from before the log began."""
    return not tag.startswith(LOGGED_TAGS) or _time(tag) < began


def _pointed(tags: Mapping[str, str]) -> dict[str, int]:
    last = next(reversed(_tagged(tags, HISTORY_TAG).values()), None)
    if last is None:
        return {}
    before = {} if last["production"] is None else {PREVIOUS: int(last["production"])}
    return {PRODUCTION: int(last["to"]), **before}


def _tagged(tags: Mapping[str, str], prefix: str) -> dict[str, dict[str, Any]]:
    return {tag: json.loads(tags[tag]) for tag in sorted(tags) if tag.startswith(prefix)}


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _time(tag: str) -> str:
    return tag.partition(".")[2]


def _version(number: int | None) -> str:
    return "no version" if number is None else f"version {number}"
