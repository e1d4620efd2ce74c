"""`llm-assets traffic`: which versions share a model's requests, and with which weights."""

import json
from typing import Annotated

import typer

from llm_assets.cli.deployments import Force, deploy, warn
from llm_assets.cli.options import AsJson, Model, Tenant, UsageError, Why
from llm_assets.cli.output import output
from llm_assets.cli.versions import with_registry
from llm_assets.operator import operator
from llm_assets.promotion_rules import promotion_check, rules_of
from resources.mlflow.traffic import MlflowTraffic, TrafficShare

Weights = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[VERSION=PERCENT]...",
        help="A version (label, number, or alias such as `candidate`) and its share of the requests; "
        "production keeps the rest.",
    ),
]
Off = Annotated[bool, typer.Option("--off", help="Give all requests to production again.")]


def traffic(
    model: Model,
    tenant: Tenant,
    weights: Weights = None,
    off: Off = False,
    why: Why = "",
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Lets a version answer a share of the requests beside production; without one, shows the shares.

    VERSION is a label, a number, or an alias such as `candidate`. It must pass the rules of a promotion, and
    has a live server of its own, proven before it gets its share; production keeps the rest. A promotion or a
    rollback ends the sharing: what is production then has all requests.

    Example: `llm-assets traffic support_bot --tenant team-a candidate=10 --why "new opening hours"`
    """
    if weights and off:
        raise UsageError("Give weights, or --off, which ends them; not both.")
    chosen = _parsed(weights or [])
    here, registry = with_registry(model, tenant)
    register = MlflowTraffic(registry)
    if not weights and not off:
        _show(register.shares(tenant, model), as_json=as_json)
        return
    rules = rules_of(here.catalog, here.settings, here.profile.store, tenant, model)
    check = promotion_check(rules, why=why, warn=warn, force=force)
    shares = register.change(tenant, model, chosen, who=operator(), why=why, check=check)
    _show(shares, as_json=False)
    deploy(here, model, tenant)


def _parsed(weights: list[str]) -> dict[str, int]:
    parsed: dict[str, int] = {}
    for text in weights:
        version, _, percent = text.rpartition("=")
        if not version or not percent.isascii() or not percent.isdigit() or version in parsed:
            raise UsageError(f"{text!r} is no share; VERSION=PERCENT is, such as candidate=10.")
        parsed[version] = int(percent)
    return parsed


def _show(shares: tuple[TrafficShare, ...], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"version": each.version.label, "number": each.version.number, "weight": each.weight}
            for each in shares
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    console = output()
    for each in shares:
        aliases = f"  [dim]{', '.join(each.version.aliases)}[/]" if each.version.aliases else ""
        console.print(f"{each.weight:>4} %  version {each.version.number} ({each.version.label}){aliases}")
    if not shares:
        console.print("Nothing is in production yet.")
