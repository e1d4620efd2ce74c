"""`make demo`: everything set up, one tenant's chain, and the same question before and after."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from llm_assets.cli.ask import answer_of_base
from llm_assets.cli.engines import install_shown
from llm_assets.cli.installation import Installation, installation
from llm_assets.cli.run import execute
from llm_assets.cli.stack import show_addresses
from llm_assets.embedded import embedded_stack
from llm_assets.gateway.own_keys import door_of, key_file
from llm_assets.gateway.parts import gateway_of
from llm_assets.stack import Stack
from resources.engines.locks import ENGINES

MODEL = "support_bot"
DEMO = "demo"
"""The name of the key that the demo asks with."""
ANSWER_TOKENS = 48

DemoTenant = Annotated[str, typer.Option("--tenant", "-t", help="Whose model: team-a or team-b.")]


def demo(tenant: DemoTenant = "team-a") -> None:
    """Sets everything up, takes a tenant to a live model and asks it and its base model the same question."""
    here = installation()
    here.check_names(MODEL, tenant)
    console = Console(highlight=False, soft_wrap=True)
    stack = embedded_stack(here.settings)
    stack.start(automation=False)
    for engine in ENGINES:
        install_shown(here.settings.engines, engine, console=console)
    if not execute(here, MODEL, tenant, op_config={}):
        raise typer.Exit(1)
    _compare(console, here, stack, tenant)
    with console.status("Waiting for the Dagster UI …"):
        stack.wait_ready()
    console.print()
    show_addresses(console, stack)
    _say_how_to_go_on(console, here, tenant)


def _compare(console: Console, here: Installation, stack: Stack, tenant: str) -> None:
    question = here.catalog.models[MODEL].known_questions[0]
    with console.status("Asking the base model …"):
        before = answer_of_base(here, MODEL, question, ANSWER_TOKENS)
    asked = [{"role": "user", "content": question}]
    with console.status("Waiting for the gateway …"):
        stack.gateway.wait_ready()
    door = door_of(here.settings, tenant, DEMO)
    after, _ = door.ask(MODEL, asked, max_tokens=ANSWER_TOKENS, temperature=0)
    console.print(f"\n  [bold]{escape(question)}[/]")
    for who, answer in (("the base model", before), (f"{MODEL} of {tenant}", after)):
        console.print(f"  [dim]{who:<24}[/] {escape(' '.join(answer.split()))}")


def _say_how_to_go_on(console: Console, here: Installation, tenant: str) -> None:
    command = Path(sys.argv[0])
    if command.is_relative_to(Path.cwd()):
        command = command.relative_to(Path.cwd())
    rows = [
        ("ask again", f'{command} ask {MODEL} --tenant {tenant} "When are you open?"'),
        ("or as any application", _curl(here, tenant)),
        ("its card", f"{command} card {MODEL} --tenant {tenant}"),
        ("stop everything", f"{command} down"),
    ]
    for what, how in rows:
        console.print(f"  {what:<24} {how}", markup=False)


def _curl(here: Installation, tenant: str) -> str:
    """The key goes from its file to curl, and neither over the screen nor into the list of processes."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "When are you open?"}]})
    key, address = key_file(here.settings, tenant, DEMO), gateway_of(here.settings).address_of(tenant)
    header = shlex.quote(f"@{key}")
    return f"curl -s {address}/chat/completions -H {header} -H 'Content-Type: application/json' -d '{body}'"
