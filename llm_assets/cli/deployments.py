"""`llm-assets promote | rollback | history | card`: which version serves, who decided it, and what it is."""

import json
from dataclasses import asdict
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from llm_assets.assets.deployments import restores
from llm_assets.cli.installation import Installation
from llm_assets.cli.options import AsJson, Model, Tenant, UsageError, Why
from llm_assets.cli.output import output
from llm_assets.cli.run import execute
from llm_assets.cli.versions import Version, by_alias, by_name, named_or_production, with_registry
from llm_assets.gateway.parts import GatewayParts
from llm_assets.keys import VLLM_DEPLOYMENT
from llm_assets.model_cards.html import card_html, without_header
from llm_assets.operator import operator
from llm_assets.promotion_rules import promotion_check, rollback_check, rules_of
from llm_assets.version_cards import card_of
from resources.mlflow.registry import Move
from resources.mlflow.traffic import MlflowTraffic, TrafficChange
from resources.seams.serving import WHOLE

Candidate = Annotated[
    str | None, typer.Argument(help="A version's label or number; the candidate if left out.")
]
CardForm = Annotated[
    Literal["md", "html", "json"] | None,
    typer.Option(
        "--format", help="As a file of that kind; if left out, as text for a terminal, and md for a file."
    ),
]
Restore = Annotated[
    bool, typer.Option("--restore", help="Write MLflow's aliases and tags anew from the signed log.")
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Override thresholds and model card; who and --why stay on record."),
]


def promote(
    model: Model, tenant: Tenant, version: Candidate = None, why: Why = "", force: Force = False
) -> None:
    """Makes a version production and serves it; the one before serves until the new one has answered.

    The version must be whole, signed where the tenant demands it, of a risk class that the tenant allows,
    within the model's thresholds and, for a high-risk model, with a complete card.

    Example: `llm-assets promote support_bot --tenant team-a 3 --why "better on returns"`
    """
    here, registry = with_registry(model, tenant)
    versions = registry.versions(tenant, model)
    chosen = by_alias(versions, "candidate") if version is None else by_name(versions, version)
    rules = rules_of(here.catalog, here.settings, here.profile.store, tenant, model)
    check = promotion_check(rules, why=why, warn=warn, force=force)
    promoted = registry.promote(tenant, model, version=chosen.number, who=operator(), why=why, check=check)
    output().print(f"Version {promoted.number} ({promoted.label}) is production.")
    deploy(here, model, tenant)


def rollback(model: Model, tenant: Tenant, why: Why = "") -> None:
    """Makes the version before production again and serves it; it must still be whole and well signed.

    Example: `llm-assets rollback support_bot --tenant team-a --why "wrong opening hours"`
    """
    here, registry = with_registry(model, tenant)
    rules = rules_of(here.catalog, here.settings, here.profile.store, tenant, model)
    check = rollback_check(rules, why=why)
    promoted = registry.rollback(tenant, model, who=operator(), why=why, check=check)
    output().print(f"Version {promoted.number} ({promoted.label}) is production again.")
    deploy(here, model, tenant)


def history(model: Model, tenant: Tenant, as_json: AsJson = False, restore: Restore = False) -> None:
    """Lists every promotion, rollback and change of the traffic: when, which versions, who, why, what was
    overridden. It is the signed log's; what MLflow was made to say otherwise is named.

    Example: `llm-assets history support_bot --tenant team-a`
    """
    _, registry = with_registry(model, tenant)
    if restore:
        registry.restore(tenant, model)
    for each in registry.differences(tenant, model):
        warn(f"{each}. {restores(model, tenant)}")
    moves: list[Move | TrafficChange] = [*registry.history(tenant, model)]
    moves += MlflowTraffic(registry).history(tenant, model)
    moves.sort(key=lambda move: move.at)
    if as_json:
        rows = [{"action": _action(move), **asdict(move)} for move in moves]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table("When (UTC)", "What", "From", "To", "Who", "Why", box=None, pad_edge=False)
    for move in moves:
        before = "-" if move.production is None else str(move.production)
        overridden = [("\noverridden: " + rule, "red") for rule in move.overridden]
        table.add_row(
            move.at[:19].replace("T", " "),
            _action(move),
            before,
            _to(move),
            move.who,
            Text.assemble(move.why, *overridden),
        )
    output().print(table)


def _action(move: Move | TrafficChange) -> str:
    return move.action if isinstance(move, Move) else "traffic"


def _to(move: Move | TrafficChange) -> str:
    if isinstance(move, Move):
        return str(move.to)
    shares = [f"{number} {weight} %" for number, weight in move.weights.items()]
    return ", ".join(shares) or f"{move.production} {WHOLE} %"


def card(
    model: Model,
    tenant: Tenant,
    version: Version = None,
    form: CardForm = None,
    as_json: AsJson = False,
) -> None:
    """Prints a version's model card; the one in production if no version is named.

    Example: `llm-assets card support_bot --tenant team-a`, or `… --format html > card.html`
    """
    here, registry = with_registry(model, tenant)
    wanted = named_or_production(registry, model, tenant, version)
    store = here.profile.store
    found = card_of(store, wanted.source, wanted.digest)
    if found is None:
        raise UsageError(
            f"The card of version {wanted.label} is not in the store any more: "
            f"`llm-assets run {model} --tenant {tenant}` writes the newest one anew."
        )
    if as_json or form == "json":
        typer.echo(json.dumps(json.loads(store.read(found, "card.json")), indent=2, ensure_ascii=False))
        return
    text, console = store.read(found, "README.md").decode(), output()
    if form == "html":
        typer.echo(card_html(text, title=f"{model} of {tenant}, version {wanted.label}"))
    elif form == "md" or not console.is_terminal:
        typer.echo(text)
    else:
        console.print(Markdown(without_header(text)))


def warn(text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(text, style="yellow", highlight=False, markup=False)


def deploy(here: Installation, model: str, tenant: str) -> None:
    """Serves what is in production, unless the model is one that nothing serves."""
    if here.catalog.models[model].serving.mode == "none":
        output().print(f"{model} has `serving.mode: none`, so nothing is deployed.")
        return
    gateway = GatewayParts(profile=here.profile)
    gateway.start_where_none_runs()
    gateway.wait_ready()
    op_config = {f"{model}__{VLLM_DEPLOYMENT}": {"config": {"promote_candidate": False}}}
    if not execute(here, model, tenant, op_config=op_config, only=VLLM_DEPLOYMENT):
        raise typer.Exit(1)
