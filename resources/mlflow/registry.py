"""The register of versions: what exists, which one is in production, who decided it.

A signed log on this machine's disk decides (`resources/mlflow/move_log.py`); MLflow shows it, and is asked
for nothing but how it differs. Weights never go through MLflow: a version's source is
`artifact://models/<tenant>/<model>/<version>`, which the artifact store resolves. A tenant's model is one
registered model, `<tenant>.<model>`, with three aliases: `candidate` (registered last), `production` (what is
to be served), `previous` (what was served before, where a rollback goes).

Every verb may be cut off at any moment and called again. Does not cover: see `resources/mlflow/promotion.py`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resources.mlflow import promotion
from resources.mlflow.client import RegistryError, mlflow_client, refuse_credentials
from resources.mlflow.move_log import (
    CANDIDATE,
    CANDIDATE_TAG,
    PREVIOUS,
    PRODUCTION,
    VERSION_TAG,
    Line,
    LoggedVersion,
    MoveLog,
    time_after,
)
from resources.mlflow.promotion import Move
from resources.mlflow.shown import (
    differences,
    find_model,
    make_version,
    number_in_mlflow,
    remove_foreign,
    show,
    version_tags,
    versions_in_mlflow,
)
from resources.mlflow.tracking import log_run
from resources.mlflow.versions import (
    DESCRIPTION_CHARACTERS,
    RegisteredVersion,
    RegistryEntry,
    address_of,
    every_model,
    every_version,
    is_registered_name,
    registered_name,
)
from resources.seams.state import State, TurnTakenError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["MlflowRegistry", "Move", "RegisteredVersion", "RegistryEntry", "RegistryError"]

_LOG = logging.getLogger(__name__)

Check = Callable[[RegisteredVersion], Sequence[str]]
"""Raises if a version may not become production; gives back the rules that were broken and overridden."""


def unchecked(version: RegisteredVersion) -> Sequence[str]:
    """Every version may."""
    return ()


@dataclass(frozen=True, kw_only=True)
class MlflowRegistry:
    """The register of versions on the MLflow server at `tracking_uri`.

    Whoever moves `production` of the same model takes turns by `state`;
    `promotions` is the folder of the signed log of moves, which counts, and `signing_keys` that of the
    key that signs it.
    `token_file` holds a bearer token that opens the server; MLflow's own variables hold users and passwords.
    """

    tracking_uri: str
    state: State
    promotions: str
    signing_keys: str
    token_file: str | None = None

    def register(self, entry: RegistryEntry) -> RegisteredVersion:
        """Registers an artifact as a version and makes it the candidate. Registered before: the same version,
        with the description and card digest of this entry.

        Raises:
            RegistryError: The label is registered with another digest, or MLflow fails.
        """
        with self.settled(entry.tenant, entry.model, f"registering {entry.source}") as (client, line):
            logged = line.versions.get(entry.version)
            if logged and logged.digest != entry.digest:
                raise RegistryError(
                    f"{entry.source} is registered with the digest {logged.digest}, not {entry.digest}. "
                    "A version never changes: publish the new files under a new label."
                )
            with self.move_log.showing(line.name):
                if find_model(client, line.name) is None:
                    line = self._written_anew(client, line)
                before = line
                _ensure_model(client, entry)
                version = _logged(client, line, entry)
                if line.versions.get(entry.version) != version:
                    line = self._record(line, VERSION_TAG, asdict(version))
                    description = entry.description[:DESCRIPTION_CHARACTERS]
                    client.update_model_version(line.name, str(version.number), description)
                if line.pointed.get(CANDIDATE) != entry.version:
                    due = line.pointed.get(PRODUCTION) != entry.version
                    line = self._record(line, CANDIDATE_TAG, {"to": version.number, "due": due})
                show(client, line, since=before)
        return registered(line, entry.version)

    def promote(
        self,
        tenant: str,
        model: str,
        *,
        version: str | int,
        who: str,
        why: str,
        check: Check = unchecked,
    ) -> RegisteredVersion:
        """Makes a version (by label or number) production; the one before becomes `previous`.

        A version that is in production already stays as it is, with the record of its own promotion.
        `check` is asked while nobody else can move the model, before anything is moved.
        """
        with self.settled(tenant, model, f"promoting {model} of {tenant}") as (client, line):
            target = _found(line, version)
            return self._move(client, line, target, "promote", who=who, why=why, check=check)

    def promote_candidate(
        self, tenant: str, model: str, *, who: str, why: str, check: Check = unchecked
    ) -> RegisteredVersion | None:
        """Promotes the candidate unless that was done before, so that a rollback is not undone by a rerun.

        Returns:
            The version promoted, or None where the candidate had its promotion (or there is no candidate).
            A version that becomes the candidate anew, because the data went back to what it was, may be
            promoted again.
        """
        doing = f"promoting the candidate of {model} of {tenant}"
        with self.settled(tenant, model, doing) as (client, line):
            if not line.waits:
                return None
            candidate = registered(line, line.pointed[CANDIDATE])
            return self._move(client, line, candidate, "promote", who=who, why=why, check=check)

    def rollback(
        self, tenant: str, model: str, *, who: str, why: str, check: Check = unchecked
    ) -> RegisteredVersion:
        """Makes `previous` production again, and what is in production `previous`.

        Called again, it stays at that: two calls, one of them perhaps a retry, never bring the bad version
        back. To go elsewhere, promote a version by name.

        Raises:
            RegistryError: There is no previous version.
        """
        with self.settled(tenant, model, f"rolling back {model} of {tenant}") as (client, line):
            _require_versions(line)
            last = next(reversed(promotion.history(line)), None)
            if last and last.action == "rollback":
                return registered(line, line.pointed[PRODUCTION])
            if PREVIOUS not in line.pointed:
                raise RegistryError(
                    f"{model} of {tenant} has no previous version to go back to. "
                    f"`llm-assets promote {model} --tenant {tenant} VERSION` takes any registered version."
                )
            target = registered(line, line.pointed[PREVIOUS])
            return self._move(client, line, target, "rollback", who=who, why=why, check=check)

    def line(self, tenant: str, model: str) -> Line:
        """Everything that the signed log has of a tenant's model."""
        name = registered_name(tenant, model)
        self._begin(f"reading what was registered of {model} of {tenant}")
        return self.move_log.line(name)

    def production(self, tenant: str, model: str) -> RegisteredVersion | None:
        """The version that is to be served, if any was ever promoted."""
        return _by_alias(self.line(tenant, model), PRODUCTION)

    def candidate(self, tenant: str, model: str) -> RegisteredVersion | None:
        """The version that was registered last."""
        return _by_alias(self.line(tenant, model), CANDIDATE)

    def waiting(self, tenant: str, model: str) -> RegisteredVersion | None:
        """The candidate, unless it was promoted already: it waits for a person (or for its own promotion)."""
        line = self.line(tenant, model)
        return _by_alias(line, CANDIDATE) if line.waits else None

    def all_waiting(self) -> tuple[RegisteredVersion, ...]:
        """The candidates of all tenants and models that wait, by tenant and model."""
        self._begin("looking for candidates that wait")
        waiting = sorted((line for line in self.move_log.lines() if line.waits), key=lambda line: line.name)
        return tuple(registered(line, line.pointed[CANDIDATE]) for line in waiting)

    def versions(self, tenant: str, model: str) -> tuple[RegisteredVersion, ...]:
        """All versions, newest first; none of a model that was never registered."""
        line = self.line(tenant, model)
        return tuple(registered(line, each.label) for each in _newest_first(line))

    def history(self, tenant: str, model: str) -> tuple[Move, ...]:
        """Every promotion and rollback, oldest first: who, why, when, from which version to which.

        Versions have the numbers of today.
        """
        line = self.line(tenant, model)
        _require_versions(line)
        return tuple(promotion.as_of_today(move, line) for move in promotion.history(line))

    def all_differences(self) -> tuple[str, ...]:
        """As `differences`, of all tenants and models but those that somebody changes at this moment."""
        with self.client("comparing MLflow with the signed log") as client:
            for name in self.move_log.all_cut_off():
                tenant, _, model = name.partition(".")
                with suppress(TurnTakenError), self._turn(tenant, model, "comparing", timeout_s=0):
                    self._settle(client, name)
            versions: dict[str, dict[int, ModelVersion]] = {}
            for version in every_version(client):
                versions.setdefault(str(version.name), {})[int(version.version)] = version
            known = {model.name: model for model in every_model(client) if is_registered_name(model.name)}
            lines = {line.name: line for line in self.move_log.lines()}
            return tuple(
                each
                for name in sorted(known.keys() | lines.keys())
                if not self.move_log.cut_off(name)
                for each in differences(
                    known.get(name), versions.get(name, {}), lines.get(name) or Line(name=name, entries={})
                )
            )

    def differences(self, tenant: str, model: str) -> tuple[str, ...]:
        """Where MLflow says something else than the signed log, a sentence for each."""
        with self.settled(tenant, model, f"comparing {model} of {tenant} with the signed log") as (
            client,
            line,
        ):
            versions = versions_in_mlflow(client, line)
            return tuple(differences(find_model(client, line.name), versions, line))

    def restore(self, tenant: str, model: str) -> None:
        """Brings MLflow to what the signed log says; versions that were deleted there get new numbers, and
        those that are in no log go.
        """
        with self.settled(tenant, model, f"restoring {model} of {tenant}") as (client, line):
            _require_versions(line)
            with self.move_log.showing(line.name):
                remove_foreign(client, self._written_anew(client, line))

    def log_training(
        self,
        tenant: str,
        model: str,
        *,
        fingerprint: str,
        params: Mapping[str, object],
        history: Sequence[Mapping[str, float]],
        tags: Mapping[str, str],
    ) -> str:
        """Writes a training as a run of the experiment `<tenant>.<model>`; written before: the same run.

        Args:
            params: The recipe.
            history: Rows such as `{"step": 10, "loss": 2.1, "eval_loss": 2.3}`; `step` is required.

        Returns:
            MLflow's id of the run.
        """
        with self.client(f"logging a training of {model} of {tenant}") as client:
            experiment = registered_name(tenant, model)
            every_tag = {**tags, "tenant": tenant, "model": model}
            return log_run(
                client, experiment, fingerprint=fingerprint, params=params, history=history, tags=every_tag
            )

    def page(self, tenant: str, model: str, number: int | None = None) -> str:
        """The address of a model's page in MLflow's own UI, or of one version's."""
        refuse_credentials(self.tracking_uri)
        address = f"{self.tracking_uri.rstrip('/')}/#/models/{registered_name(tenant, model)}"
        return address if number is None else f"{address}/versions/{number}"

    @contextmanager
    def settled(self, tenant: str, model: str, doing: str) -> Iterator[tuple["MlflowClient", Line]]:
        """A line that nobody else changes, shown in MLflow as far as it was cut off."""
        name = registered_name(tenant, model)
        with self._turn(tenant, model, doing), self.client(doing) as client:
            yield client, self._settle(client, name)

    def _turn(
        self, tenant: str, model: str, doing: str, timeout_s: float | None = None
    ) -> AbstractContextManager[None]:
        return self.state.turn(tenant, model, "move", doing=doing, say=_LOG.info, timeout_s=timeout_s)

    def _settle(self, client: "MlflowClient", name: str) -> Line:
        line = self.move_log.line(name)
        if self.move_log.cut_off(name):
            with self.move_log.showing(name):
                line = self._written_anew(client, line)
        return line

    def _written_anew(self, client: "MlflowClient", line: Line) -> Line:
        """The line, with the numbers that its versions have in MLflow now."""
        if not line.versions:
            return line
        if find_model(client, line.name) is None:
            client.create_registered_model(line.name, {"tenant": line.tenant, "model": line.model})
        there = versions_in_mlflow(client, line)
        for logged in line.versions.values():
            number = number_in_mlflow(line, logged.label, there)
            if number is None:
                number = make_version(client, line, logged.label, version_tags(line, logged.label))
            if number != logged.number:
                line = self._record(line, VERSION_TAG, asdict(logged) | {"number": number})
        show(client, line)
        return line

    def _record(self, line: Line, kind: str, value: Mapping[str, object]) -> Line:
        """The line with one entry more."""
        self.move_log.record(line.name, kind + time_after(line.last), value)
        return self.move_log.line(line.name)

    def _begin(self, doing: str) -> None:
        refuse_credentials(self.tracking_uri)
        if not self.move_log.begun:
            with self.client(doing):
                pass

    @property
    def move_log(self) -> MoveLog:
        return MoveLog(folder=Path(self.promotions), keys=Path(self.signing_keys), state=self.state)

    @contextmanager
    def client(self, doing: str) -> Iterator["MlflowClient"]:
        """A client of MLflow, which shows what was registered and promoted and decides nothing."""
        token_file = Path(self.token_file) if self.token_file else None
        with mlflow_client(self.tracking_uri, doing, token_file=token_file) as client:
            if not self.move_log.begun:
                self.move_log.begin(client)
            yield client

    def _move(
        self,
        client: "MlflowClient",
        line: Line,
        target: RegisteredVersion,
        action: promotion.Action,
        *,
        who: str,
        why: str,
        check: Check,
    ) -> RegisteredVersion:
        if line.pointed.get(PRODUCTION) != target.label:
            overridden = check(target)
            move = promotion.new_move(action, target.number, line, who=who, why=why, overridden=overridden)
            with self.move_log.showing(line.name):
                self.move_log.record(line.name, move.history_tag, asdict(move))
                line = self.show_change(client, line)
        return registered(line, target.label)

    def show_change(self, client: "MlflowClient", before: Line) -> Line:
        """The line as it is now, shown in MLflow; what was deleted there and is needed for it comes back."""
        line = self.move_log.line(before.name)
        there = versions_in_mlflow(client, line)
        if all(number in there for number in line.aliases.values()):
            show(client, line, since=before)
            return line
        return self._written_anew(client, line)


def _logged(client: "MlflowClient", line: Line, entry: RegistryEntry) -> LoggedVersion:
    """A version as the log is to have it, with its number in MLflow."""
    known = line.versions.get(entry.version)
    tags = {**known.tags, **entry.follows} if known else entry.tags
    number = number_in_mlflow(line, entry.version, versions_in_mlflow(client, line))
    if number is None:
        number = make_version(
            client, line, entry.version, tags, run_id=entry.training_run_id, description=entry.description
        )
    about = {"owner": entry.owner, "risk_class": entry.risk_class}
    return LoggedVersion(number=number, label=entry.version, digest=entry.digest, tags=tags, about=about)


def _ensure_model(client: "MlflowClient", entry: RegistryEntry) -> None:
    from mlflow.exceptions import MlflowException

    name = registered_name(entry.tenant, entry.model)
    description = entry.model_description[:DESCRIPTION_CHARACTERS]
    try:
        client.create_registered_model(name, {"tenant": entry.tenant, "model": entry.model}, description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        client.update_registered_model(name, description)


def _require_versions(line: Line) -> None:
    if not line.versions:
        raise RegistryError(
            f"{line.model} of {line.tenant} has no registered version. "
            f"`llm-assets run {line.model} --tenant {line.tenant}` makes one."
        )


def _found(line: Line, version: str | int) -> RegisteredVersion:
    """By number or label."""
    _require_versions(line)
    for known in line.versions.values():
        if str(version) in (str(known.number), known.label):
            return registered(line, known.label)
    newest = _newest_first(line)[:5]
    listed = ", ".join(f"{known.number} ({known.label})" for known in newest)
    raise RegistryError(
        f"{line.model} of {line.tenant} has no version {version}. The newest registered ones: {listed}."
    )


def _newest_first(line: Line) -> list[LoggedVersion]:
    return list(line.versions.values())[::-1]


def _by_alias(line: Line, alias: str) -> RegisteredVersion | None:
    label = line.pointed.get(alias)
    return None if label is None else registered(line, label)


def registered(line: Line, label: str) -> RegisteredVersion:
    """Raises:
    RegistryError: The line has no such version.
    """
    logged = line.versions.get(label)
    if logged is None:
        raise RegistryError(
            f"Version {label} of {line.model} of {line.tenant} is in no signed log, so nobody knows it. "
            f"`llm-assets promote {line.model} --tenant {line.tenant} VERSION` takes a registered one."
        )
    return RegisteredVersion(
        tenant=line.tenant,
        model=line.model,
        number=logged.number,
        label=label,
        source=address_of(line.tenant, line.model, label),
        digest=logged.digest,
        aliases=tuple(sorted(alias for alias, of in line.pointed.items() if of == label)),
        tags=version_tags(line, label),
    )
