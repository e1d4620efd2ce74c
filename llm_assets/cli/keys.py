"""`llm-assets keys`: who may ask a tenant's models through the gateway."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from llm_assets.cli.durations import moment, seconds
from llm_assets.cli.installation import installation
from llm_assets.cli.key_rights import check_rights
from llm_assets.cli.options import AsJson, tenant_names
from llm_assets.cli.output import output
from llm_assets.gateway.folder import keys_journal
from llm_assets.installation.settings import find_settings
from llm_assets.operator import operator
from resources.gateway.api_keys import ApiKey, create_key, keys, revoke, rotate
from resources.gateway.limits import Limits

app = typer.Typer(
    help="API keys of the gateway: created, listed, revoked, rotated.",
    no_args_is_help=True,
    add_completion=False,
)

OfTenant = Annotated[
    str, typer.Option("--tenant", "-t", help="Whose models the key may ask.", autocompletion=tenant_names)
]
OnlyTenant = Annotated[
    str | None,
    typer.Option("--tenant", "-t", help="Only this tenant's keys.", autocompletion=tenant_names),
]
Name = Annotated[str, typer.Option("--name", "-n", help="What the key is for, such as `ci`.")]
Actor = Annotated[
    str | None, typer.Option(help="Who uses it, as records name them; the key's name if left out.")
]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="A model it may ask; all of the tenant's if left out.")
]
Classes = Annotated[
    list[str] | None,
    typer.Option("--risk-class", help="A risk class it may ask; all of the tenant's if left out."),
]
PerMinute = Annotated[int | None, typer.Option(min=1, help="Most requests in a minute.")]
AtOnce = Annotated[int | None, typer.Option(min=1, help="Most requests at once.")]
Tokens = Annotated[int | None, typer.Option(min=1, help="Most tokens, asked and answered, in a minute.")]
Expires = Annotated[
    str | None, typer.Option(help="When it ends: 12h, 90d, or a date such as 2027-01-31 (UTC).")
]
By = Annotated[str | None, typer.Option(help="For whom; kept beside the OS user.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="A key's id: llma_<id>_….")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Keys' ids: llma_<id>_….")]
Overlap = Annotated[
    str, typer.Option(help="How long the old key still holds, such as 24h; it ends at once if left out.")
]


@app.command("create")
def create_command(
    tenant: OfTenant,
    name: Name,
    actor: Actor = None,
    model: Models = None,
    risk_class: Classes = None,
    requests_per_minute: PerMinute = None,
    concurrent_requests: AtOnce = None,
    tokens_per_minute: Tokens = None,
    expires: Expires = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Makes a key and prints it, this once: only its hash is kept. The gateway takes it at once.

    Example: `llm-assets keys create --tenant team-a --name ci --model support_bot --expires 90d`
    """
    here = installation()
    check_rights(here.catalog, tenant, models=model or (), risk_classes=risk_class or ())
    limits = Limits(
        requests_per_minute=requests_per_minute,
        concurrent_requests=concurrent_requests,
        tokens_per_minute=tokens_per_minute,
    )
    key, text = create_key(
        keys_journal(here.settings),
        tenant=tenant,
        name=name,
        actor=actor or name,
        models=tuple(model) if model else None,
        risk_classes=tuple(risk_class) if risk_class else None,
        limits=limits,
        expires=moment(expires, now=time.time()) if expires else None,
        by=operator(by),
    )
    _show_once(key, text, as_json=as_json)


@app.command("list")
def list_command(
    tenant: OnlyTenant = None,
    every: Annotated[bool, typer.Option("--all", help="Also the revoked and the expired.")] = False,
    as_json: AsJson = False,
) -> None:
    """Says which keys hold, what each may, and who made it. The keys themselves nobody can show.

    Example: `llm-assets keys list --tenant team-a`
    """
    now = time.time()
    found = keys(keys_journal(find_settings()), tenant)
    shown = [key for key in found if every or key.state(now) == "active"]
    if as_json:
        typer.echo(json.dumps([_row(key, now) for key in shown], indent=2))
    else:
        _show(shown, now, ended=len(found) - len(shown))


@app.command("revoke")
def revoke_command(ids: Ids, by: By = None) -> None:
    """Ends keys for good. The gateway refuses them from the next request on.

    Example: `llm-assets keys revoke k3fz7q2mabcd`
    """
    for key in revoke(keys_journal(find_settings()), ids, by=operator(by)):
        _say(f"{key.id} ({key.name} of {key.tenant}) is revoked, by {key.revoked_by} {_when(key.revoked)}.")


@app.command("rotate")
def rotate_command(key_id: Id, overlap: Overlap = "0s", by: By = None, as_json: AsJson = False) -> None:
    """Makes a key that may what the old one may and prints it, this once; the old one ends.

    Example: `llm-assets keys rotate k3fz7q2mabcd --overlap 24h`
    """
    overlap_s = seconds(overlap)
    journal = keys_journal(find_settings())
    key, text = rotate(journal, key_id, by=operator(by), overlap_s=overlap_s)
    _say(f"{key_id} {f'holds for another {overlap}' if overlap_s else 'is revoked'}.")
    _show_once(key, text, as_json=as_json)


def _show_once(key: ApiKey, text: str, *, as_json: bool) -> None:
    """The key alone on the standard output, so that it can be piped to where it is kept."""
    _say(f"Key {key.id} ({key.name} of {key.tenant}): it is shown this once. Keep it where secrets are kept.")
    typer.echo(json.dumps({"key": text, **_row(key, key.created)}, indent=2) if as_json else text)


def _row(key: ApiKey, now: float) -> dict[str, object]:
    return {**asdict(key), "state": key.state(now)}


def _show(shown: list[ApiKey], now: float, *, ended: int) -> None:
    table = Table(box=None, pad_edge=False)
    columns: dict[str, Callable[[ApiKey], str]] = {
        "Id": lambda key: key.id,
        "Tenant": lambda key: key.tenant,
        "Name": lambda key: key.name,
        "Actor": lambda key: key.actor,
        "Models": lambda key: "all" if key.models is None else ", ".join(key.models),
        "Risk classes": lambda key: "all" if key.risk_classes is None else ", ".join(key.risk_classes),
        "Limits": lambda key: _limits(key.limits),
        "Made": lambda key: f"{_when(key.created)} by {key.by}",
        "State": lambda key: _state(key, now),
    }
    for title in columns:
        table.add_column(title, no_wrap=title in ("Id", "State"), overflow="fold")
    for key in shown:
        table.add_row(*(text(key) for text in columns.values()))
    if shown:
        output().print(table)
    else:
        _say("No key holds. `llm-assets keys create --tenant TENANT --name NAME` makes one.")
    if ended:
        _say(f"{ended} more ended; --all shows them.")


def _limits(limits: Limits) -> str:
    units = {
        "requests_per_minute": "req/min",
        "concurrent_requests": "at once",
        "tokens_per_minute": "tok/min",
    }
    given = {unit: getattr(limits, name) for name, unit in units.items()}
    return ", ".join(f"{value} {unit}" for unit, value in given.items() if value is not None) or "none"


def _state(key: ApiKey, now: float) -> str:
    if key.revoked is not None:
        return f"revoked {_when(key.revoked)} by {key.revoked_by}"
    if key.expires is None:
        return "holds"
    return f"{'expired' if key.expires <= now else 'holds until'} {_when(key.expires)}"


def _when(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%MZ")


def _say(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(message, highlight=False, markup=False)
