"""`llm-assets engines`: LLaMA-Factory and vLLM, each in an environment of its own on this machine."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from llm_assets.cli.display import Display
from llm_assets.cli.options import AsJson
from llm_assets.cli.terminal import Screen
from llm_assets.installation.profiles import profile_of
from llm_assets.installation.settings import find_settings
from llm_assets.training import engine_upgrade
from resources.engines.installation import (
    ENGINES,
    Device,
    EngineName,
    EngineStatus,
    engine_status,
    install,
    installed_engine,
)

NAMES: dict[EngineName, str] = {"train": "LLaMA-Factory", "serve": "vLLM"}
VERSIONS_OF: dict[EngineName, tuple[str, ...]] = {
    "train": ("llamafactory", "torch"),
    "serve": ("vllm", "torch"),
}

app = typer.Typer(
    help="The engines of this machine: `train` is LLaMA-Factory, `serve` is vLLM.",
    no_args_is_help=True,
    add_completion=False,
)

Which = Annotated[EngineName | None, typer.Argument(help="Only this one; both when left out.")]
On = Annotated[Device | None, typer.Option("--device", help="cpu or cuda; by default what this machine has.")]


@app.command("install")
def install_command(which: Which = None, device: On = None) -> None:
    """Installs the engines from the locks in images/. What is installed already is left as it is.

    Goes by the index, certificate and proxy that pip is set up with. Interrupted, it goes on where it was.

    Example: `llm-assets engines install`, or `llm-assets engines install train --device cuda`
    """
    engines = find_settings().engines
    display = Display(Screen())
    for engine in (which,) if which else ENGINES:
        install_shown(engines, engine, device=device, display=display)


@app.command("status")
def status_command(as_json: AsJson = False) -> None:
    """Says which engines are installed, for which device and in which versions.

    Example: `llm-assets engines status --json`
    """
    found = [engine_status(find_settings().engines, engine) for engine in ENGINES]
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], default=str, indent=2))
        return
    for each in found:
        typer.echo(f"{each.engine:<6} {NAMES[each.engine]:<14} {_standing(each)}")
        if each.installed:
            typer.echo(f"{'':<21} {_versions(each)}, in {each.folder}")


@app.command("adapters")
def adapters_command(as_json: AsJson = False) -> None:
    """Lists adapters that another engine than the installed one trained. They stay until they are retrained.

    Example: `llm-assets engines adapters`
    """
    settings = find_settings()
    installed = installed_engine(settings.engines, "train")
    store = profile_of(settings).store
    found = []
    for line in store.lines():
        newest = next(store.versions(line), None) if line.collection == "adapters" else None
        upgrade = engine_upgrade(newest, installed) if newest else None
        if newest and upgrade:
            named = {"tenant": line.tenant, "model": line.name, "version": newest.version}
            found.append(named | {"engine": upgrade})
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for each in found:
        typer.echo(f"{each['model']} of {each['tenant']}: {each['engine']}")
        typer.echo(f"  llm-assets run {each['model']} --tenant {each['tenant']} --retrain")
    if not found:
        typer.echo("The installed engine trained every adapter.")


def install_shown(
    engines: Path, engine: EngineName, *, display: Display, device: Device | None = None
) -> EngineStatus:
    """Installs one engine with a moving line on `display`."""
    before = engine_status(engines, engine)
    started = time.monotonic()
    with display.shown(), display.at_work(NAMES[engine]) as work:
        say = partial(display.say, work)
        report = say if display.console.is_terminal else _Phases(say)
        status = install(engines, engine, device=device, report=report)
    said = f"is installed for {status.device}"
    if status.folder != before.folder:
        said = f"for {status.device}: {_versions(status)} ({time.monotonic() - started:.0f} s)"
    display.console.print(f"  ✓ {NAMES[engine]} {said}")
    return status


class _Phases:
    """Without a terminal a download is one line, not hundreds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._last = say, ""

    def __call__(self, phase: str) -> None:
        kind = phase.partition(" ")[0]
        if kind != self._last:
            self._say("downloading" if kind == "downloading" else phase)
        self._last = kind


def _standing(status: EngineStatus) -> str:
    if not status.installed:
        return f"not installed: {status.remedy}"
    return f"installed for {status.device}" + (
        "" if status.current else f", of an older lock: {status.remedy}"
    )


def _versions(status: EngineStatus) -> str:
    known = ((name, status.versions.get(name)) for name in VERSIONS_OF[status.engine])
    return ", ".join(f"{name} {version}" for name, version in known if version)
