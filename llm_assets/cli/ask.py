"""`llm-assets ask`: a question to a live model, or to the base model that it started from."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console

from llm_assets.base_answers import answer_of_base_model
from llm_assets.cli.installation import Installation, installation
from llm_assets.cli.options import AsJson, Model, Tenant
from llm_assets.cli.versions import by_name, with_registry
from llm_assets.gateway.own_keys import gateway_client
from llm_assets.gateway.parts import gateway_of
from resources.gateway.errors import GatewayError

ASKING = "ask"
"""The name of the key that this command asks with."""

Question = Annotated[str, typer.Argument(help="What to ask.")]
Base = Annotated[bool, typer.Option("--base", help="Ask the base model instead, offline.")]
Version = Annotated[
    str | None, typer.Option("--version", help="The live version that is to answer: its label or number.")
]
Key = Annotated[
    str | None, typer.Option("--key", help="Questions of equal key (a user) go to the same version.")
]
MaxTokens = Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")]


def ask(
    model: Model,
    question: Question,
    tenant: Tenant,
    base: Base = False,
    version: Version = None,
    key: Key = None,
    max_tokens: MaxTokens = 128,
    as_json: AsJson = False,
) -> None:
    """Asks a tenant's live model and prints the answer as it comes.

    At the gateway, as an application would, with a key of this command's own. Where versions share the
    traffic, one of them answers, by weight.

    Example: `llm-assets ask support_bot --tenant team-a "When are you open?"`
    """
    here = installation()
    here.check_names(model, tenant)
    console = Console(highlight=False, soft_wrap=True)
    if base:
        answer = answer_of_base(here, model, question, max_tokens)
        typer.echo(json.dumps({"answer": answer}) if as_json else answer)
        return
    wanted = f"{model}@{_label(model, tenant, version)}" if version else model
    asked: list[dict[str, str]] = [{"role": "user", "content": question}]
    options: dict[str, Any] = {"affinity": key, "max_tokens": max_tokens, "temperature": 0}
    if not gateway_of(here.settings).running():
        raise GatewayError("The gateway, at which models are asked, does not run: `llm-assets up` starts it.")
    client = gateway_client(here.settings, tenant, ASKING)
    if as_json:
        answer, receipt = client.ask(wanted, asked, **options)
        typer.echo(json.dumps({"answer": answer, **asdict(receipt)}))
        return
    for piece in client.stream(wanted, asked, **options):
        console.print(piece, end="", markup=False)
    console.print()


def _label(model: str, tenant: str, version: str) -> str:
    """Servers know labels; numbers are the registry's."""
    if not version.isdigit():
        return version
    _, registry = with_registry(model, tenant)
    return by_name(registry.versions(tenant, model), version).label


def answer_of_base(here: Installation, model: str, question: str, max_tokens: int) -> str:
    """What the base model says, by the train engine, with the template that the model is trained with."""
    return answer_of_base_model(
        here.settings, here.catalog.base_models[here.catalog.models[model].base_model], question, max_tokens
    )
