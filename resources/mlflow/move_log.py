"""The signed log of what was registered and promoted: MLflow's registry can be changed by whoever reaches it.

A hash-chained, signed log per tenant, of the same making as the audit log (`resources/audit/chain.py`) but
never deleted from. Each record is one entry of a line, by a tag `<kind>.<UTC time>`:

    version.…     a version was registered, or what is known of it changed: number, label, digest, tags
    candidate.…   a version became the candidate, and whether it may still be promoted by itself
    history.…     `production` moved
    traffic.…     versions got a share of the requests

The log decides: what is in production, what the candidate is, which version a number means. A version is told
by its label; numbers are MLflow's, which gives a new one to what was deleted there and is written anew.

An installation that is older than its log, or whose log is older than versions in it, adopts what MLflow says
once, as records that say so (`adopted`).

Does not cover: somebody who can write to the state folder and has the signing key.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.audit.chain import Chain, SegmentLimits
from resources.audit.places import PLATFORM, AuditError, AuditPlaces
from resources.audit.run_time import RunTime
from resources.audit.segments import record_in, segments_in
from resources.audit.statements import Signing
from resources.audit.verifying import verify_tenant
from resources.mlflow.client import RegistryError
from resources.mlflow.versions import every_model, every_version, is_own, is_registered_name
from resources.seams.state import State, StateError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CANDIDATE = "candidate"
PRODUCTION = "production"
PREVIOUS = "previous"
ALIASES = (CANDIDATE, PRODUCTION, PREVIOUS)
HISTORY_TAG = "history."
TRAFFIC_TAG = "traffic."
VERSION_TAG = "version."
CANDIDATE_TAG = "candidate."
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"  # a tag's name may hold no plus sign
FAULTS_NAMED = 3
LIMITS = SegmentLimits(age_s=366 * 86400)  # a day with an entry is a segment
BEGAN = "began"
SHARED = "promotions/"

Entry = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LoggedVersion:
    """A version as the log has it; `about` are the tags of the model that it was registered with."""

    number: int
    label: str
    digest: str
    tags: Mapping[str, str]
    about: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Line:
    """The versions of one tenant and model: every entry of the log, oldest first, by tag."""

    name: str
    entries: Mapping[str, Entry]

    @property
    def tenant(self) -> str:
        return self.name.partition(".")[0]

    @property
    def model(self) -> str:
        return self.name.partition(".")[2]

    @property
    def last(self) -> str:
        """When the newest entry was made; "" before the first."""
        return max(map(time_of, self.entries), default="")

    def of(self, kind: str) -> list[tuple[str, Entry]]:
        """Tag and value of the entries of a kind, oldest first."""
        return [(tag, value) for tag, value in self.entries.items() if tag.startswith(kind)]

    @cached_property
    def versions(self) -> Mapping[str, LoggedVersion]:
        """By label, in the order of their first registration, each as it was registered last."""
        return {value["label"]: LoggedVersion(**value) for _, value in self.of(VERSION_TAG)}

    def numbered(self, number: int) -> LoggedVersion | None:
        """The version that has this number in MLflow now."""
        return next((each for each in self.versions.values() if each.number == number), None)

    def label(self, number: int | str, at: str) -> str:
        """Of the version that had `number` at that time; the number itself where none ever had it."""
        named = [(tag, value) for tag, value in self.of(VERSION_TAG) if value["number"] == int(number)]
        if not named:
            return str(number)
        then = [value for tag, value in named if time_of(tag) <= at] or [named[0][1]]
        return str(then[-1]["label"])

    def now(self, number: int | str, at: str) -> int:
        """The number that the version has now which had `number` at that time."""
        label = self.label(number, at)
        return self.versions[label].number if label in self.versions else int(number)

    @cached_property
    def pointed(self) -> Mapping[str, str]:
        """Label by alias."""
        found = {}
        if candidate := self.of(CANDIDATE_TAG):
            tag, value = candidate[-1]
            found[CANDIDATE] = self.label(value["to"], time_of(tag))
        if moves := self.of(HISTORY_TAG):
            tag, value = moves[-1]
            found[PRODUCTION] = self.label(value["to"], time_of(tag))
            if value["production"] is not None:
                found[PREVIOUS] = self.label(value["production"], time_of(tag))
        return found

    @property
    def aliases(self) -> Mapping[str, int]:
        """The number that MLflow has now of what each alias points to."""
        return {
            alias: self.versions[label].number
            for alias, label in self.pointed.items()
            if label in self.versions
        }

    @property
    def waits(self) -> bool:
        """Whether the candidate was not in production since it became the candidate."""
        if not (candidate := self.of(CANDIDATE_TAG)):
            return False
        tag, value = candidate[-1]
        since = [(each, move) for each, move in self.of(HISTORY_TAG) if time_of(each) > time_of(tag)]
        moved_to = {self.label(move["to"], time_of(each)) for each, move in since}
        return bool(value["due"]) and self.pointed[CANDIDATE] not in moved_to


@dataclass(frozen=True, kw_only=True)
class MoveLog:
    """The log in one folder, which machines share by `state`, signed with the key in `keys`."""

    folder: Path
    keys: Path
    state: State

    @property
    def begun(self) -> bool:
        """Whether it has the versions that there were before it."""
        segments = segments_in(self._places.log(PLATFORM))
        return any(b'"versions":' in each.path.read_bytes() for each in segments)

    def begin(self, client: "MlflowClient") -> None:
        """Adopts what MLflow says, once."""
        with self._locked(PLATFORM):
            if self.begun:
                return
            known = {line.name: line for line in self.lines()}
            versions: dict[str, list[ModelVersion]] = {}
            for version in every_version(client):
                versions.setdefault(str(version.name), []).append(version)
            adopted = 0
            for model in every_model(client):
                if not is_registered_name(model.name):
                    continue  # somebody else's, on a server that is shared
                line = known.get(model.name, Line(name=model.name, entries={}))
                for tag, value in _standing(model, versions.get(model.name, ()), line):
                    self.record(model.name, tag, value, adopted=True)
                    adopted += 1
                    if tag not in model.tags and tag.startswith(HISTORY_TAG):
                        self._mark_cut_off(model.name)  # MLflow does not show it yet
            began = {"id": BEGAN, "kind": "event", "event": BEGAN, "adopted": adopted}
            self._append(PLATFORM, began | {"versions": sum(map(len, versions.values()))})

    def record(self, name: str, tag: str, value: Entry, *, adopted: bool = False) -> None:
        """Seals one entry; this is when it happens.

        Raises:
            RegistryError: The disk does not take it, so it did not happen.
        """
        tenant = name.partition(".")[0]
        entry = {"id": f"{name}:{tag}", "kind": "move", "line": name, "tag": tag, "value": dict(value)}
        try:
            with self._locked(tenant):
                self._append(tenant, entry | ({"adopted": True} if adopted else {}))
        except (OSError, AuditError, StateError) as error:
            raise RegistryError(f"{name}: the signed log of promotions was not written. {error}") from error

    def line(self, name: str) -> Line:
        """Raises:
        RegistryError: The log was altered; nothing in it can be relied on.
        """
        return self._lines(name.partition(".")[0]).get(name) or Line(name=name, entries={})

    def lines(self) -> Iterator[Line]:
        """Every line that the log has entries of."""
        for tenant in self._tenants():
            if tenant != PLATFORM:
                yield from self._lines(tenant).values()

    @contextmanager
    def showing(self, name: str) -> Iterator[None]:
        """While MLflow is brought to what the log says. What is cut off is finished by who comes next."""
        self._mark_cut_off(name)
        yield
        self._mark(name).unlink(missing_ok=True)

    def cut_off(self, name: str) -> bool:
        """Whether MLflow was not brought to what the log says, or is being brought to it."""
        return self._mark(name).exists()

    def all_cut_off(self) -> list[str]:
        folder = self.folder / "showing"
        return sorted(mark.name for mark in folder.iterdir()) if folder.is_dir() else []

    def _mark_cut_off(self, name: str) -> None:
        mark = self._mark(name)
        mark.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        mark.touch(mode=0o600)

    def _mark(self, name: str) -> Path:
        return self.folder / "showing" / name

    def _lines(self, tenant: str) -> dict[str, Line]:
        entries: dict[str, dict[str, Entry]] = {}
        for record in self._records(tenant):
            if record.get("kind") == "move":
                entries.setdefault(record["line"], {})[record["tag"]] = record["value"]
        return {
            name: Line(name=name, entries={tag: of[tag] for tag in sorted(of, key=time_of)})
            for name, of in entries.items()
        }

    def _records(self, tenant: str) -> Iterator[dict[str, Any]]:
        folder = self._places.log(tenant)
        with self._locked(tenant):
            if not folder.is_dir():
                return
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

    @contextmanager
    def _locked(self, tenant: str) -> Iterator[None]:
        folder = self._places.log(tenant)
        with self._places.lock(tenant), self.state.shared(folder, SHARED + tenant):
            yield

    def _tenants(self) -> list[str]:
        shared = {name.removeprefix(SHARED) for name in self.state.shared_names() if name.startswith(SHARED)}
        return sorted(shared | set(self._places.tenants()))

    def _append(self, tenant: str, entry: dict[str, Any]) -> None:
        signing = Signing(self.keys)
        run_time = RunTime(places=self._places, signing=signing)
        Chain(self._places, tenant, signing, run_time, LIMITS).append([entry])

    @property
    def _places(self) -> AuditPlaces:
        return AuditPlaces(folder=self.folder)


def time_after(last: str) -> str:
    """Now, or just after the last one: another machine's clock may be ahead of this one's."""
    now = datetime.now(UTC)
    if last:
        now = max(now, datetime.strptime(last, TIME).replace(tzinfo=UTC) + timedelta(microseconds=1))
    return now.strftime(TIME)


def time_of(tag: str) -> str:
    return tag.partition(".")[2]


def _standing(
    model: "RegisteredModel", versions: Sequence["ModelVersion"], line: Line
) -> Iterator[tuple[str, Entry]]:
    """What MLflow says now and the log does not have: moves from before it, versions, the candidate."""
    began = min(map(time_of, line.entries), default=None)
    before = {tag: value for tag, value in _told(model) if began is None or time_of(tag) < began}
    yield from before.items()
    at = max([line.last, *map(time_of, before)], default="")
    for version in sorted(versions, key=lambda each: int(each.version)):
        if line.numbered(int(version.version)) is None and is_own(version):
            yield VERSION_TAG + (at := time_after(at)), _adopted(model, version)
    aliases = {alias: int(number) for alias, number in model.aliases.items()}
    if CANDIDATE in aliases and not line.of(CANDIDATE_TAG):
        due = any(int(each.version) == aliases[CANDIDATE] and _was_due(each) for each in versions)
        value = {"to": aliases[CANDIDATE], "due": due and aliases.get(PRODUCTION) != aliases[CANDIDATE]}
        yield CANDIDATE_TAG + (at := time_after(at)), value
    moves = [value for tag, value in before.items() if tag.startswith(HISTORY_TAG)]
    told = int(moves[-1]["to"]) if moves else None
    if PRODUCTION in aliases and not line.of(HISTORY_TAG) and told != aliases[PRODUCTION]:
        at = time_after(at)
        yield (
            HISTORY_TAG + at,
            {
                "action": "promote",
                "to": aliases[PRODUCTION],
                "production": aliases.get(PREVIOUS),
                "previous": None,
                "who": "llm-assets",
                "why": "MLflow's aliases when the signed log began",
                "at": at,
                "overridden": [],
            },
        )


def _told(model: "RegisteredModel") -> Iterator[tuple[str, Entry]]:
    """MLflow's own tags of moves and traffic, oldest first."""
    for tag in sorted(model.tags, key=time_of):
        if tag.startswith((HISTORY_TAG, TRAFFIC_TAG)) and isinstance(value := parsed(model.tags[tag]), dict):
            yield tag, value


def parsed(text: str) -> object:
    """What a tag holds; None where that is no JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _adopted(model: "RegisteredModel", version: "ModelVersion") -> dict[str, Any]:
    return {
        "number": int(version.version),
        "label": version.tags.get("version", str(version.version)),
        "digest": version.tags.get("digest", ""),
        "tags": {tag: text for tag, text in version.tags.items() if not tag.startswith(_OF_MOVES)},
        "about": {tag: model.tags[tag] for tag in ("owner", "risk_class") if tag in model.tags},
    }


_OF_MOVES = ("promoted_", "automatic_promotion")


def _was_due(version: "ModelVersion") -> bool:
    return version.tags.get("automatic_promotion") == "due"
