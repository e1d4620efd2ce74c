"""`llm-assets up | down | status`: the local stack, and what is live on it."""

import json
import threading
import time
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from llm_assets.catalog.loading import Catalog
from llm_assets.cli.installation import Installation, installation
from llm_assets.cli.links import print_line, show_links
from llm_assets.cli.options import AsJson
from llm_assets.cli.output import output
from llm_assets.cli.waiting import print_differences, print_outdated, print_waiting, waiting_candidates
from llm_assets.followed_catalog import FollowedCatalog
from llm_assets.gateway.parts import gateway_of
from llm_assets.installation.profiles import profile_of
from llm_assets.installation.settings import find_settings
from llm_assets.stack import Stack
from llm_assets.supervision import Supervision, end_up, supervised
from resources.gateway.envoy import EnvoyGateway
from resources.mlflow.registry import RegisteredVersion
from resources.seams.serving import Deployment, ModelServing

WATCH_S = 1.0
SHOWN = ("version", "digest", "weight", "status", "since", "why")
STYLES = {
    "live": "green",
    "starting": "yellow",
    "degraded": "bold red",
    "dead": "bold red",
    "unreadable": "bold red",
    "stopped": "dim",
    "absent": "dim",
}

Sensors = Annotated[
    bool, typer.Option(help="Start the sensors, so that changed datasets and experiments start runs.")
]


def up(sensors: Sensors = True) -> None:
    """Starts the whole local stack in the foreground: gateway, UI, MLflow, live servers. Ctrl-C ends it all.

    Example: `llm-assets up`
    """
    here = installation()
    console = output()
    stack = Stack(profile=here.profile)
    say = partial(console.print, style="yellow", highlight=False, markup=False, soft_wrap=True)
    supervision = Supervision(home=here.settings.home, say=say)
    followed = FollowedCatalog(settings=here.settings, locations=stack.locations, say=say)
    ended = threading.Event()
    supervision.begin()
    try:
        followed.begin(here.catalog if stack.ui() is None else None)
        stack.start(automation=sensors)
        with console.status("Starting the gateway, MLflow and the Dagster UI …"):
            stack.wait_ready()
        stack.revive(here.catalog, lambda text: console.print(text, style="dim", highlight=False))
        show_addresses(console, stack, here.catalog)
        for fault in stack.locations.faults():
            console.print(fault, style="bold red", highlight=False, markup=False, soft_wrap=True)
        console.print("Ctrl-C ends it all.", style="dim")
        threading.Thread(target=followed.follow, args=(ended,), daemon=True).start()
        while True:
            time.sleep(WATCH_S)
            supervision.look(stack.parts(automation=sensors, say=say))
    finally:
        ended.set()
        with console.status("Stopping …"):
            supervision.end(stack.stop)
        console.print("Stopped.", style="dim")


def show_addresses(console: Console, stack: Stack, catalog: Catalog) -> None:
    """Where everything is, a line each."""
    show_links(console, stack, catalog)
    for state in stack.profile.serving.states():
        if any(backend.status == "live" for backend in state.backends):
            print_line(console, f"{state.tenant}/{state.model}", stack.gateway.envoy.address_of(state.tenant))


def down() -> None:
    """Stops the local stack, wherever it was started. `up` brings back what was live.

    Example: `llm-assets down`
    """
    settings = find_settings()
    end_up(settings.home)  # it would start everything again
    Stack(profile=profile_of(settings)).stop()
    output().print("Stopped.", style="dim")


def status(as_json: AsJson = False) -> None:
    """Shows every deployment, each of its versions with its weight, whether it is live, and which candidates
    wait to be promoted.

    A server that died is named, and a code location that the running UI did not load; exit code 1 then.

    Example: `llm-assets status`
    """
    here = installation()
    gateway = gateway_of(here.settings)
    serving, waiting = here.profile.serving, waiting_candidates(here.settings)
    states = serving.states()
    if as_json:
        typer.echo(json.dumps(_rows(here, serving, states, waiting or ()), indent=2, default=str))
    elif not states:
        output().print("Nothing was deployed yet. `llm-assets run MODEL --tenant TENANT` does it.")
    else:
        console = output()
        _print_states(console, states)
        _print_doors(console, gateway, sorted({state.tenant for state in states}))
    restarts = supervised(here.settings.home)
    if not as_json:
        print_waiting(output(), waiting)
        print_outdated(output(), here)
        print_differences(output(), here.settings)
        for each in restarts or ():
            Console(soft_wrap=True).print(each.text, style="yellow", highlight=False, markup=False)
        if restarts is None and any(state.faulty for state in states):
            output().print("`llm-assets up` starts again what died.", style="dim")
    unloaded = location_faults(here)
    for fault in unloaded:
        Console(stderr=True, soft_wrap=True).print(fault, style="red", highlight=False, markup=False)
    if unloaded or any(state.faulty for state in states):
        raise typer.Exit(1)


def location_faults(here: Installation) -> tuple[str, ...]:
    """A sentence for each code location that the UI did not load; none while the UI does not run."""
    stack = Stack(profile=here.profile)
    return stack.locations.faults() if stack.ui() else ()


def _rows(
    here: Installation,
    serving: ModelServing,
    states: tuple[Deployment, ...],
    waiting: tuple[RegisteredVersion, ...],
) -> list[dict[str, Any]]:
    """Every deployment, and every candidate that waits, which may be all that there is of its model."""
    candidates = {(each.tenant, each.model): each for each in waiting}
    known = {(state.tenant, state.model): state for state in states}
    known |= {line: serving.state(*line) for line in candidates.keys() - known.keys()}
    rows = []
    for line, state in sorted(known.items()):
        candidate = candidates.get(line)
        row = _as_json(here, state)
        row["waiting_candidate"] = (
            {"number": candidate.number, "version": candidate.label} if candidate else None
        )
        rows.append(row)
    return rows


def _as_json(here: Installation, state: Deployment) -> dict[str, Any]:
    """What is known of a deployment, and its tenant's door."""
    gateway = gateway_of(here.settings)
    door = gateway.address_of(state.tenant) if gateway.running() else None
    production = state.production
    return {
        "tenant": state.tenant,
        "model": state.model,
        "status": state.status,
        "version": state.version,
        "digest": production.digest if production else None,
        "since": production.since if production else None,
        "why": state.why,
        "backends": [{name: getattr(each, name) for name in SHOWN} for each in state.backends],
        "door": door,
    }


def _print_doors(console: Console, gateway: EnvoyGateway, tenants: list[str]) -> None:
    """Where applications ask: each tenant's address at the gateway."""
    if not gateway.running():
        console.print("The gateway is not running; `llm-assets up` starts it.", style="dim", highlight=False)
        return
    for tenant in tenants:
        console.print(f"{tenant} is asked at [cyan]{gateway.address_of(tenant)}[/]", highlight=False)


def _print_states(console: Console, states: tuple[Deployment, ...]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("tenant", "model", "state", "weight", "since", "version"):
        table.add_column(column, no_wrap=column != "version", overflow="fold")
    for state in states:
        for backend in state.backends:
            weight, since = f"{backend.weight} %", _time(backend.since)
            known = (weight, since, backend.version)
            table.add_row(state.tenant, state.model, _mark(backend.status), *known)
        if not state.backends:
            table.add_row(state.tenant, state.model, _mark(state.status), "", "", state.version)
    console.print(table)
    for state in states:
        if state.why:
            console.print(state.why, style="red", highlight=False, markup=False, soft_wrap=True)


def _mark(status: str) -> str:
    return f"[{STYLES[status]}]{status}[/]"


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
