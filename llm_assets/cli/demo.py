"""`make demo`: everything set up, one tenant's chain, and the same question before and after.

What does not need the engine that trains goes on beside the training: vLLM is installed, and while vLLM
starts the base model is asked.
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from llm_assets.cli.beside import Beside
from llm_assets.cli.display import Display
from llm_assets.cli.engines import NAMES, install_shown
from llm_assets.cli.init import begin_in_an_empty_folder
from llm_assets.cli.installation import Installation, installation
from llm_assets.cli.run import execute
from llm_assets.cli.stack import show_addresses
from llm_assets.cli.terminal import Screen
from llm_assets.gateway.own_keys import gateway_client, key_file
from llm_assets.gateway.parts import gateway_of
from llm_assets.keys import VLLM_DEPLOYMENT
from llm_assets.stack import Stack
from resources.mlflow.client import warm

MODEL = "support_bot"
DEMO = "demo"
"""The name of the key that the demo asks with."""
ANSWER_TOKENS = 48

DemoTenant = Annotated[str, typer.Option("--tenant", "-t", help="Whose model: team-a or team-b.")]


def demo(tenant: DemoTenant = "team-a") -> None:
    """Sets everything up, takes a tenant to a live model and asks it and its base model the same question.

    In an empty folder it makes a project first, as `llm-assets init` does.

    Example: `llm-assets demo --tenant team-b`
    """
    begin_in_an_empty_folder()
    here = installation()
    here.check_names(MODEL, tenant)
    question = here.catalog.models[MODEL].known_questions[0]
    display = Display(Screen())
    stack = Stack(profile=here.profile)
    with display.shown(), Beside(display) as beside:
        with display.at_work("starting gateway, MLflow and UI"):
            stack.start(automation=False)
        warm()
        install_shown(here.settings.engines, "train", display=display)
        serve = beside.command(NAMES["serve"], "engines", "install", "serve")
        serve.start()
        serve.wait_for_a_word()  # from then on the deployment waits for the installation
        asking = beside.command(
            "base model's answer",
            *("ask", MODEL, question, "--tenant", tenant, "--base", "--max-tokens", str(ANSWER_TOKENS)),
        )
        starts = {f"{MODEL}/{VLLM_DEPLOYMENT}": asking.start}
        if not execute(here, MODEL, tenant, op_config={}, display=display, starts=starts):
            serve.result()  # where it failed, that is why there is no vLLM
            raise typer.Exit(1)
        answer = asking.result()
        with display.at_work("waiting for gateway, MLflow and UI"):
            stack.wait_ready()
    _compare(display.console, here, tenant, question, answer)
    display.console.print()
    show_addresses(display.console, stack, here.catalog)
    _say_how_to_go_on(display.console, here, tenant)


def _compare(console: Console, here: Installation, tenant: str, question: str, before: str) -> None:
    door = gateway_client(here.settings, tenant, DEMO)
    asked = [{"role": "user", "content": question}]
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
        console.print(f"  {what:<24} {how}", markup=False, soft_wrap=True)


def _curl(here: Installation, tenant: str) -> str:
    """The key goes from its file to curl, and neither over the screen nor into the list of processes."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "When are you open?"}]})
    key, address = key_file(here.settings, tenant, DEMO), gateway_of(here.settings).address_of(tenant)
    header = shlex.quote(f"@{key}")
    return f"curl -s {address}/chat/completions -H {header} -H 'Content-Type: application/json' -d '{body}'"
