"""`llm-assets promote | rollback | card`: which version serves, who decided it, and what it is."""

import getpass
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from llm_assets.cli.installation import Installation, installation
from llm_assets.cli.options import AsJson, Model, Tenant, UsageError, Why
from llm_assets.cli.run import execute
from llm_assets.embedded import embedded_resources, embedded_stack, embedded_store
from llm_assets.keys import VLLM_DEPLOYMENT
from resources.artifacts import Line
from resources.mlflow import MlflowRegistry

Version = Annotated[
    str | None, typer.Argument(help="A version's label or number; the candidate if left out.")
]


def promote(model: Model, tenant: Tenant, version: Version = None, why: Why = "") -> None:
    """Makes a version production and serves it; the one before serves until the new one has answered.

    Example: `llm-assets promote support_bot --tenant team-a 3 --why "better on returns"`
    """
    here, registry = _with_registry(model, tenant)
    chosen = version or _candidate(registry, tenant, model)
    promoted = registry.promote(tenant, model, version=chosen, who=getpass.getuser(), why=why)
    Console().print(f"Version {promoted.number} ({promoted.label}) is production.", highlight=False)
    _deploy(here, model, tenant)


def rollback(model: Model, tenant: Tenant, why: Why = "") -> None:
    """Makes the version before production again and serves it.

    Example: `llm-assets rollback support_bot --tenant team-a --why "wrong opening hours"`
    """
    here, registry = _with_registry(model, tenant)
    promoted = registry.rollback(tenant, model, who=getpass.getuser(), why=why)
    Console().print(f"Version {promoted.number} ({promoted.label}) is production again.", highlight=False)
    _deploy(here, model, tenant)


def card(model: Model, tenant: Tenant, version: Version = None, as_json: AsJson = False) -> None:
    """Prints a version's model card; the one in production if no version is named.

    Example: `llm-assets card support_bot --tenant team-a`
    """
    here, registry = _with_registry(model, tenant)
    versions = registry.versions(tenant, model)
    wanted = [each for each in versions if version in (str(each.number), each.label)]
    wanted = wanted or [each for each in versions if version is None and "production" in each.aliases]
    if not wanted:
        known = ", ".join(f"{each.number} ({each.label})" for each in versions) or "none"
        raise UsageError(
            f"{model} of {tenant} has no version {version or 'in production'}; there is {known}."
        )
    store = embedded_store(here.settings)
    cards = store.versions(Line(collection="cards", tenant=tenant, name=model))
    found = next((each for each in cards if each.digest == wanted[0].tags.get("card_digest")), None)
    if found is None:
        raise UsageError(
            f"The card of version {wanted[0].label} is not in the store any more: "
            f"`llm-assets run {model} --tenant {tenant}` writes the newest one anew."
        )
    if as_json:
        typer.echo(json.dumps(json.loads(store.read(found, "card.json")), indent=2, ensure_ascii=False))
        return
    text = store.read(found, "README.md").decode()
    Console().print(Markdown(text.split("\n---\n", 1)[-1]))


def _with_registry(model: str, tenant: str) -> tuple[Installation, MlflowRegistry]:
    here = installation()
    here.check_names(model, tenant)
    server = embedded_stack(here.settings).mlflow
    server.ensure_ready()
    registry: MlflowRegistry = embedded_resources(here.settings)["registry"]
    return here, registry


def _candidate(registry: MlflowRegistry, tenant: str, model: str) -> str:
    candidate = registry.candidate(tenant, model)
    if candidate is None:
        raise UsageError(
            f"{model} of {tenant} has no registered version: "
            f"`llm-assets run {model} --tenant {tenant}` makes one."
        )
    return candidate.label


def _deploy(here: Installation, model: str, tenant: str) -> None:
    op_config = {f"{model}__{VLLM_DEPLOYMENT}": {"config": {"promote_candidate": False}}}
    if not execute(here, model, tenant, op_config=op_config, only=VLLM_DEPLOYMENT):
        raise typer.Exit(1)
