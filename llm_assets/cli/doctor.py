"""`llm-assets doctor`: is this machine and installation fit for work, and what would mend it?"""

import importlib.util
import json
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import typer
from rich.console import Console

from llm_assets.catalog.loading import load_catalog
from llm_assets.catalog.mistakes import CatalogError
from llm_assets.cli.options import AsJson
from llm_assets.code_location import check_location
from llm_assets.gateway.parts import gateway_of
from llm_assets.identifiers_file import further_identifiers
from llm_assets.installation.profiles import profile_of
from llm_assets.installation.settings import Settings, find_settings
from llm_assets.stack import Stack
from resources.audit.places import AuditError
from resources.engines.installation import EngineStatus, engine_status
from resources.engines.locks import ENGINES
from resources.gateway.envoy import METRICS_PORT_SETTING, PORT_SETTING, envoy_program, running_gateway
from resources.gateway.errors import GatewayError
from resources.mlflow.registry import MlflowRegistry, RegistryError
from resources.mlflow.server import MlflowServer
from resources.private_files import close_to_others, is_open_to_others, open_to_others
from resources.processes.local_processes import own_network_fault

GIB = 2**30
NEEDED_DISK_GIB = 8
NEEDED_MEMORY_GIB = 4
SHOWN_DIFFERENCES = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at; `remedy` says what to do where it is not well."""

    what: str
    well: bool
    found: str
    remedy: str = ""


def doctor(as_json: AsJson = False) -> None:
    """Looks at Python, disk, memory, engines, ports, catalog, promotions. Exit code 1 when one is not well.

    Example: `llm-assets doctor`
    """
    findings = list(examine(find_settings()))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        console = Console(soft_wrap=True, highlight=False)
        for finding in findings:
            mark = "[green]✓[/]" if finding.well else "[red]✗[/]"
            console.print(f"{mark} {finding.what:<14} {finding.found}")
            if not finding.well:
                console.print(f"  {'':<14} {finding.remedy}", style="yellow", markup=False)
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)


def examine(settings: Settings) -> Iterator[Finding]:
    yield Finding(
        what="Python",
        well=sys.version_info[:2] == (3, 11),
        found=sys.version.split()[0],
        remedy="The engines are locked for Python 3.11; make the environment with it.",
    )
    yield _disk(settings)
    yield from private_files(settings)
    yield _memory()
    for engine in ENGINES:
        status = engine_status(settings.engines, engine)
        yield Finding(
            what=f"engine {engine}",
            well=status.current,
            found=_standing(status),
            remedy=status.remedy or "",
        )
    yield _gateway(settings)
    yield _network()
    yield from _ports(settings)
    yield _catalog(settings)
    yield _personal_data(settings)
    yield from _locations(settings)
    profile = profile_of(settings)
    yield promotions(profile.registry, running=profile.mlflow.ready())


def promotions(registry: MlflowRegistry, *, running: bool) -> Finding:
    """The signed log of promotions, and, where MLflow is running, whether it shows what the log says."""
    what = "promotions"
    try:
        count = sum(1 for _ in registry.move_log.lines())
        differences = registry.all_differences() if running else ()
    except RegistryError as error:
        return Finding(what=what, well=False, found="cannot be read or compared", remedy=str(error))
    if not differences:
        compared = "MLflow shows the same" if running else "MLflow is not running, so it was not compared"
        return Finding(what=what, well=True, found=f"the signed log has {count} models; {compared}")
    shown = "; ".join(differences[:SHOWN_DIFFERENCES])
    more = len(differences) - SHOWN_DIFFERENCES
    return Finding(
        what=what,
        well=False,
        found=f"{shown}; and {more} more" if more > 0 else shown,
        remedy="The log counts, and what it says is served. "
        "`llm-assets history MODEL --tenant TENANT --restore` writes MLflow anew.",
    )


def _standing(status: EngineStatus) -> str:
    if not status.installed:
        return "not installed"
    return f"installed for {status.device}" + ("" if status.current else ", from an older lock")


def _disk(settings: Settings) -> Finding:
    place = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    free = shutil.disk_usage(place).free / GIB
    return Finding(
        what="disk",
        well=free >= NEEDED_DISK_GIB and os.access(place, os.W_OK),
        found=f"{free:.0f} GiB free for {settings.home}",
        remedy=f"Engines, weights and checkpoints want {NEEDED_DISK_GIB} GiB and write access; "
        "free some or move LLM_ASSETS_HOME.",
    )


def private_files(settings: Settings) -> Iterator[Finding]:
    """Closes to others what is the platform's own; a store or cache elsewhere may be shared on purpose."""
    found = [
        path
        for folder in filter(None, (settings.home, settings.keys, settings.audit_keys))
        for path in open_to_others(folder, apart_from=settings.engines)
    ]
    left = [path for path in found if not close_to_others(path)]
    yield Finding(
        what="private files",
        well=not left,
        found=f"{len(left)} of other users can be opened by others, such as {left[0]}"
        if left
        else f"{len(found)} could be opened by other users of this machine; they no longer can"
        if found
        else "only you can open what lies in the state folder",
        remedy=f"Their owner, or root: chmod -R go= {shlex.quote(str(settings.home))}",
    )
    for name, folder in _elsewhere(settings):
        if folder.exists() and is_open_to_others(folder):
            found_there = f"{folder} can be entered by others; unless that is meant: chmod -R go= {folder}"
            yield Finding(what=name, well=True, found=found_there)


def _elsewhere(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Folders of artifacts that do not lie in the state folder."""
    if settings.store_url.startswith("file:"):
        yield "artifact store", Path(settings.store_url.removeprefix("file:"))
    if not settings.reads_in_place:
        yield "artifact cache", settings.artifact_cache


def _memory() -> Finding:
    available = psutil.virtual_memory().available / GIB
    return Finding(
        what="memory",
        well=available >= NEEDED_MEMORY_GIB,
        found=f"{available:.0f} GiB available, {os.cpu_count()} cores",
        remedy=f"The demo's training and server want {NEEDED_MEMORY_GIB} GiB; end something else.",
    )


def _gateway(settings: Settings) -> Finding:
    try:
        gateway_of(settings)
        envoy_program()
    except GatewayError as error:
        return Finding(what="gateway", well=False, found="cannot be started", remedy=str(error))
    tls = "with TLS" if settings.gateway_certificate else "for this machine alone, without TLS"
    return Finding(what="gateway", well=True, found=f"Envoy is installed; at {settings.gateway_host}, {tls}")


def _network() -> Finding:
    """A single user of a machine needs none of it, so it is told and no fault."""
    if fault := own_network_fault():
        found = (
            f"vLLM shares it with every user of this machine ({fault}): they can connect to the ports that "
            "PyTorch opens. Where there are others, allow user namespaces (docs/reference/access.md)"
        )
    else:
        found = "vLLM's servers have one of their own, which nobody else reaches"
    return Finding(what="network", well=True, found=found)


def _ports(settings: Settings) -> Iterator[Finding]:
    stack = Stack(profile=profile_of(settings))
    gateway = running_gateway(settings.home) is not None
    ours = {
        settings.ui_port: stack.ui() is not None,
        settings.gateway_port: gateway,
        settings.metrics_port: gateway,
    }
    if isinstance(stack.profile.mlflow, MlflowServer):
        ours[settings.mlflow_port] = stack.profile.mlflow.running()
    names = {
        settings.ui_port: ("Dagster UI", "LLM_ASSETS_UI_PORT"),
        settings.mlflow_port: ("MLflow", "LLM_ASSETS_MLFLOW_PORT"),
        settings.gateway_port: ("the gateway", PORT_SETTING),
        settings.metrics_port: ("the gateway's metrics", METRICS_PORT_SETTING),
    }
    for port, mine in ours.items():
        name, setting = names[port]
        yield Finding(
            what=f"port {port}",
            well=mine or _free(port),
            found=f"{name} runs on it" if mine else f"for {name}",
            remedy=f"Another program uses it. End that program, or set {setting} to a free port.",
        )


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _catalog(settings: Settings) -> Finding:
    shown = os.path.relpath(settings.catalog, Path.cwd())
    try:
        catalog = load_catalog(settings.catalog)
        check_location(settings, catalog)
    except CatalogError as error:
        return Finding(
            what="catalog",
            well=False,
            found=f"{len(error.mistakes)} mistakes in {shown}",
            remedy="`llm-assets check` lists them.",
        )
    return Finding(
        what="catalog",
        well=True,
        found=f"{shown}: {len(catalog.models)} models, {len(catalog.tenants)} tenants",
    )


def _personal_data(settings: Settings) -> Finding:
    """What is taken out of the texts that the audit log keeps of high-risk models."""
    what = "personal data"
    missing = [name for name in settings.audit_ner if not _installed(name)]
    if missing:
        remedy = "Install the wheels, or take them out of LLM_ASSETS_AUDIT_NER."
        return Finding(what=what, well=False, found=f"no spaCy model {', '.join(missing)}", remedy=remedy)
    try:
        further = further_identifiers(settings)
    except AuditError as error:
        return Finding(what=what, well=False, found="its file cannot be used", remedy=str(error))
    numbers = f"identifiers by the table{f' and {len(further)} of yours' if further else ''}"
    if settings.audit_ner:
        return Finding(what=what, well=True, found=f"{numbers}, names by {', '.join(settings.audit_ner)}")
    return Finding(
        what=what,
        well=True,
        found=f"{numbers}; names only by the words around them. Recommended where a high-risk model answers "
        "people: spaCy's model of their language, in LLM_ASSETS_AUDIT_NER",
    )


def _installed(model: str) -> bool:
    return Path(model).is_dir() or (model.isidentifier() and importlib.util.find_spec(model) is not None)


def _locations(settings: Settings) -> Iterator[Finding]:
    """What the UI made of the catalog when it loaded it, which may have been another then."""
    stack = Stack(profile=profile_of(settings))
    for state in stack.locations.states() or () if stack.ui() else ():
        yield Finding(
            what="code location",
            well=state.status != "failed",
            found=f"{state.name}: {state.status}",
            remedy=state.fault,
        )
