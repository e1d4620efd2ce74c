"""MLflow as the register of versions: what exists, which one is in production, who decided it.

Weights never go through MLflow: a version's source is `artifact://models/<tenant>/<model>/<version>`,
which the artifact store resolves. A tenant's model is one registered model, `<tenant>.<model>`, with
three aliases: `candidate` (registered last), `production` (what is to be served), `previous` (what was
served before, where a rollback goes).

Every verb may be cut off at any moment and called again. Does not cover: see `resources/mlflow/promotion.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster as dg

from resources.mlflow import promotion
from resources.mlflow.client import RegistryError, mlflow_client, refuse_credentials
from resources.mlflow.move_log import Line, LoggedClient, MoveLog
from resources.mlflow.promotion import CANDIDATE, PREVIOUS, PRODUCTION, Move, turn
from resources.mlflow.tracking import log_run
from resources.mlflow.versions import (
    DESCRIPTION_CHARACTERS,
    RegisteredVersion,
    RegistryEntry,
    every_model,
    find_by_source,
    find_model,
    find_versions,
    get_version,
    registered_name,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["MlflowRegistry", "Move", "RegisteredVersion", "RegistryEntry", "RegistryError"]

Check = Callable[[RegisteredVersion], Sequence[str]]
"""Raises if a version may not become production; gives back the rules that were broken and overridden."""


def unchecked(version: RegisteredVersion) -> Sequence[str]:
    """Every version may."""
    return ()


class MlflowRegistry(dg.ConfigurableResource):
    """The register of versions on the MLflow server at `tracking_uri`.

    `locks` is a folder of this machine where whoever moves `production` of the same model takes turns;
    `promotions` is the folder of the signed log of moves, which counts, and `signing_keys` that of the
    key that signs it.
    `token_file` holds what opens this machine's server; MLflow's own variables open one elsewhere.
    """

    tracking_uri: str
    locks: str
    promotions: str
    signing_keys: str
    token_file: str | None = None

    def register(self, entry: RegistryEntry) -> RegisteredVersion:
        """Registers an artifact as a version and makes it the candidate. Registered before: the same version,
        with the description and card digest of this entry.

        Raises:
            RegistryError: The label is registered with another digest, or MLflow fails.
        """
        with self.client(f"registering {entry.source}") as client:
            _ensure_model(client, entry)
            version = find_by_source(client, entry) or _create_version(client, entry)
            if version.digest != entry.digest:
                raise RegistryError(
                    f"{entry.source} is registered with the digest {version.digest}, not {entry.digest}. "
                    "A version never changes: publish the new files under a new label."
                )
            if entry.card_digest and version.tags.get("card_digest") != entry.card_digest:
                _document(client, version, entry)
            if CANDIDATE not in version.aliases:
                _make_candidate(client, version)
            return get_version(client, entry.tenant, entry.model, version.number)

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
        `check` is asked while nobody else on this machine can move the model, before anything is moved.
        """
        with self._moving(tenant, model, "promoting") as client:
            target = _version(client, tenant, model, version)
            return self._move(client, target, "promote", who=who, why=why, check=check)

    def promote_candidate(
        self, tenant: str, model: str, *, who: str, why: str, check: Check = unchecked
    ) -> RegisteredVersion | None:
        """Promotes the candidate unless that was done before, so that a rollback is not undone by a rerun.

        Returns:
            The version promoted, or None where the candidate had its promotion (or there is no candidate).
            A version that becomes the candidate anew, because the data went back to what it was, may be
            promoted again.
        """
        with self._moving(tenant, model, "promoting the candidate of") as client:
            candidate = _by_alias(client, tenant, model, CANDIDATE)
            if candidate is None or candidate.tags.get(promotion.AUTOMATIC_TAG) != promotion.DUE:
                return None
            return self._move(client, candidate, "promote", who=who, why=why, check=check)

    def rollback(
        self, tenant: str, model: str, *, who: str, why: str, check: Check = unchecked
    ) -> RegisteredVersion:
        """Makes `previous` production again, and what is in production `previous`.

        Called again, it stays at that: two calls, one of them perhaps a retry, never bring the bad version
        back. To go elsewhere, promote a version by name.

        Raises:
            RegistryError: There is no previous version.
        """
        with self._moving(tenant, model, "rolling back") as client:
            name = _known(client, tenant, model)
            line = promotion.settle(client, self.move_log, name)
            aliases = line.aliases
            last = next(reversed(promotion.history(line)), None)
            if last and last.action == "rollback" and last.to == aliases.get(PRODUCTION):
                return get_version(client, tenant, model, last.to)
            if PREVIOUS not in aliases:
                raise RegistryError(
                    f"{model} of {tenant} has no previous version to go back to. "
                    f"`llm-assets promote {model} --tenant {tenant} VERSION` takes any registered version."
                )
            target = get_version(client, tenant, model, aliases[PREVIOUS])
            return self._move(client, target, "rollback", who=who, why=why, check=check)

    def production(self, tenant: str, model: str) -> RegisteredVersion | None:
        """The version that is to be served, if any was ever promoted."""
        return self._alias(tenant, model, PRODUCTION)

    def candidate(self, tenant: str, model: str) -> RegisteredVersion | None:
        """The version that was registered last."""
        return self._alias(tenant, model, CANDIDATE)

    def waiting(self, tenant: str, model: str) -> RegisteredVersion | None:
        """The candidate, unless it was promoted already: it waits for a person (or for its own promotion)."""
        candidate = self.candidate(tenant, model)
        return candidate if candidate and _is_waiting(candidate) else None

    def all_waiting(self) -> tuple[RegisteredVersion, ...]:
        """The candidates of all tenants and models that wait, by tenant and model."""
        with self.client("looking for candidates that wait") as client:
            waiting = [
                get_version(client, line.tags["tenant"], line.tags["model"], int(line.aliases[CANDIDATE]))
                for line in every_model(client)
                if line.aliases.get(CANDIDATE) not in (None, line.aliases.get(PRODUCTION))
                and {"tenant", "model"} <= line.tags.keys()
            ]
        return tuple(version for version in waiting if _is_waiting(version))

    def versions(self, tenant: str, model: str) -> tuple[RegisteredVersion, ...]:
        """All versions, newest first; none of a model that was never registered."""
        with self.client(f"listing the versions of {model} of {tenant}") as client:
            return tuple(find_versions(client, tenant, model))

    def history(self, tenant: str, model: str) -> tuple[Move, ...]:
        """Every promotion and rollback, oldest first: who, why, when, from which version to which."""
        with self.client(f"reading the history of {model} of {tenant}") as client:
            line = client.get_registered_model(_known(client, tenant, model))
            return promotion.history(cast(Line, line))

    def all_differences(self) -> tuple[str, ...]:
        """As `differences`, of all tenants and models."""
        with self.client("comparing MLflow with the signed log") as client:
            return tuple(cast(LoggedClient, client).all_differences())

    def differences(self, tenant: str, model: str) -> tuple[str, ...]:
        """Where MLflow's aliases and tags say something else than the signed log, a sentence for each."""
        with (
            turn(self.locks, registered_name(tenant, model)),
            self.client(f"comparing {model} of {tenant} with the signed log") as client,
        ):
            name = registered_name(tenant, model)
            if find_model(client, name) is None:
                return ()
            promotion.settle(client, self.move_log, name)
            return tuple(cast(LoggedClient, client).differences(name))

    def restore(self, tenant: str, model: str) -> None:
        """Brings MLflow's aliases and tags to what the signed log says."""
        with self._moving(tenant, model, "restoring") as client:
            name = _known(client, tenant, model)
            line = promotion.settle(client, self.move_log, name)
            cast(LoggedClient, client).restore(name)
            if moves := promotion.history(line):
                promotion.show(client, name, moves[-1])

    def log_training(
        self,
        tenant: str,
        model: str,
        *,
        fingerprint: str,
        params: Mapping[str, Any],
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
    def _moving(self, tenant: str, model: str, doing: str) -> Iterator["MlflowClient"]:
        with (
            turn(self.locks, registered_name(tenant, model)),
            self.client(f"{doing} {model} of {tenant}") as client,
        ):
            yield client

    @property
    def move_log(self) -> MoveLog:
        return MoveLog(folder=Path(self.promotions), keys=Path(self.signing_keys))

    @contextmanager
    def client(self, doing: str) -> Iterator["MlflowClient"]:
        """A client whose registered models are as the signed log has them."""
        token_file = Path(self.token_file) if self.token_file else None
        with mlflow_client(self.tracking_uri, doing, token_file=token_file) as client:
            self.move_log.begin(client, lambda: every_model(client))
            yield cast("MlflowClient", LoggedClient(client, self.move_log))

    def _move(
        self,
        client: "MlflowClient",
        target: RegisteredVersion,
        action: promotion.Action,
        *,
        who: str,
        why: str,
        check: Check,
    ) -> RegisteredVersion:
        name = registered_name(target.tenant, target.model)
        line = promotion.settle(client, self.move_log, name)
        if line.aliases.get(PRODUCTION) != target.number:
            overridden = check(target)
            move = promotion.new_move(action, target.number, line, who=who, why=why, overridden=overridden)
            promotion.carry_out(client, self.move_log, name, move)
        elif target.tags.get(promotion.AUTOMATIC_TAG) == promotion.DUE:
            # Else a rerun would promote it by itself after a person has promoted another version.
            client.set_model_version_tag(name, str(target.number), promotion.AUTOMATIC_TAG, promotion.DONE)
        return get_version(client, target.tenant, target.model, target.number)

    def _alias(self, tenant: str, model: str, alias: str) -> RegisteredVersion | None:
        with self.client(f"looking up {alias} of {model} of {tenant}") as client:
            return _by_alias(client, tenant, model, alias)


def _is_waiting(candidate: RegisteredVersion) -> bool:
    return (
        PRODUCTION not in candidate.aliases and candidate.tags.get(promotion.AUTOMATIC_TAG) == promotion.DUE
    )


def _ensure_model(client: "MlflowClient", entry: RegistryEntry) -> None:
    from mlflow.exceptions import MlflowException

    name = registered_name(entry.tenant, entry.model)
    description = entry.model_description[:DESCRIPTION_CHARACTERS]
    tags = {
        "tenant": entry.tenant,
        "model": entry.model,
        "owner": entry.owner,
        "risk_class": entry.risk_class,
    }
    try:
        client.create_registered_model(name, tags, description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        client.update_registered_model(name, description)
        for tag, value in tags.items():
            client.set_registered_model_tag(name, tag, value)


def _create_version(client: "MlflowClient", entry: RegistryEntry) -> RegisteredVersion:
    created = client.create_model_version(
        registered_name(entry.tenant, entry.model),
        entry.source,
        run_id=entry.training_run_id,
        tags=entry.tags | {promotion.AUTOMATIC_TAG: promotion.DUE},
        description=entry.description[:DESCRIPTION_CHARACTERS],
        await_creation_for=0,
    )
    return get_version(client, entry.tenant, entry.model, int(created.version))


def _document(client: "MlflowClient", version: RegisteredVersion, entry: RegistryEntry) -> None:
    """A version's files never change; what people wrote about it may: the entry follows the newest card."""
    name, number = registered_name(version.tenant, version.model), str(version.number)
    client.update_model_version(name, number, entry.description[:DESCRIPTION_CHARACTERS])
    client.set_model_version_tag(name, number, "card_digest", entry.card_digest)


def _make_candidate(client: "MlflowClient", version: RegisteredVersion) -> None:
    name = registered_name(version.tenant, version.model)
    client.set_model_version_tag(name, str(version.number), promotion.AUTOMATIC_TAG, promotion.DUE)
    client.set_registered_model_alias(name, CANDIDATE, str(version.number))


def _known(client: "MlflowClient", tenant: str, model: str) -> str:
    name = registered_name(tenant, model)
    if find_model(client, name) is None:
        raise RegistryError(
            f"{model} of {tenant} has no registered version. "
            f"`llm-assets run {model} --tenant {tenant}` makes one."
        )
    return name


def _version(client: "MlflowClient", tenant: str, model: str, version: str | int) -> RegisteredVersion:
    every = find_versions(client, tenant, model)
    for known in every:
        if str(version) in (str(known.number), known.label):
            return known
    listed = ", ".join(f"{known.number} ({known.label})" for known in every[:5]) or "none"
    raise RegistryError(
        f"{model} of {tenant} has no version {version}. The newest registered ones: {listed}."
    )


def _by_alias(client: "MlflowClient", tenant: str, model: str, alias: str) -> RegisteredVersion | None:
    line = find_model(client, registered_name(tenant, model))
    number = line.aliases.get(alias) if line else None
    return get_version(client, tenant, model, int(number)) if number else None
