"""`llm-assets usage`: who used how much of what, and what it costs."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import typer
from rich.table import Table

from llm_assets.cli.installation import Installation, installation
from llm_assets.cli.options import AsJson, UsageError
from llm_assets.cli.output import output
from llm_assets.usage import Usage, UsageTables, totals, usage_of
from llm_assets.usage_records import asked_on
from resources.object_stores.opening import open_object_store

DAYS_SHOWN = 7
MOST_DAYS = 3_660
UNSETTLED = timedelta(days=1)

OfTenant = Annotated[str | None, typer.Option("--tenant", "-t", help="Of this tenant alone.")]
Since = Annotated[str | None, typer.Option("--since", help="From this day on (UTC), such as 2026-11-22.")]


def usage(tenant: OfTenant = None, since: Since = None, as_json: AsJson = False) -> None:
    """Shows requests, tokens and cost by day, tenant, model and version; without --since of seven days.

    Days that are over are read from the tables that the asset `gateway/usage` wrote, with the prices of then;
    yesterday, today, and days without a table are counted from the sealed audit records.

    Example: `llm-assets usage --tenant team-a --since 2026-11-01 --json`
    """
    here = installation()
    today = datetime.now(UTC).date()
    days = _days(today - timedelta(days=DAYS_SHOWN - 1) if since is None else _parsed(since), today)
    rows = [row for row in _rows(here, days, today) if tenant in (None, row.tenant)]
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], default=str, indent=2))
        return
    _show(rows, days)


def _parsed(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as fault:
        raise UsageError(f"--since {text!r} is not a day; YEAR-MONTH-DAY such as 2026-11-22 is.") from fault


def _days(first: date, today: date) -> list[date]:
    count = (today - first).days + 1
    if not 0 < count <= MOST_DAYS:
        raise UsageError(f"--since {first} is not one of the last {MOST_DAYS} days.")
    return [first + timedelta(days=number) for number in range(count)]


def _rows(here: Installation, days: list[date], today: date) -> Iterator[Usage]:
    tables = UsageTables(objects=open_object_store(here.settings.store_url))
    for day in days:
        rows = tables.read(day) if day < today - UNSETTLED else None
        yield from usage_of(day, asked_on(here.settings, day), here.catalog.models) if rows is None else rows


def _show(rows: list[Usage], days: list[date]) -> None:
    console = output()
    if not rows:
        console.print(f"Nothing was used from {days[0]} to {days[-1]} (UTC).")
        return
    table = Table(box=None, pad_edge=False)
    for column in asdict(rows[0]):
        left = column in _TEXTS
        table.add_column(column.replace("_", " "), justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in asdict(row).values()))
    console.print(table)
    for currency, cost in totals(rows):
        console.print(f"[bold]{cost:,.2f} {currency}[/]")


_TEXTS = ("day", "tenant", "model", "version", "currency")


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
