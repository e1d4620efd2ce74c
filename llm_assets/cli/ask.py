"""`llm-assets ask`: a question to a live model, or to the base model that it started from."""

import json
from typing import Annotated

import typer
from rich.console import Console

from llm_assets.base_answers import answer_of_base_model
from llm_assets.cli.installation import Installation, installation
from llm_assets.cli.options import AsJson, Model, Tenant
from llm_assets.embedded import embedded_serving

Question = Annotated[str, typer.Argument(help="What to ask.")]
Base = Annotated[bool, typer.Option("--base", help="Ask the base model instead, offline.")]
Version = Annotated[
    str | None, typer.Option("--version", help="The label of the live version that is to answer.")
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

    Where versions share the traffic, one of them answers, by weight.

    Example: `llm-assets ask support_bot --tenant team-a "When are you open?"`
    """
    here = installation()
    here.check_names(model, tenant)
    console = Console(highlight=False, soft_wrap=True)
    if base:
        answer = answer_of_base(here, model, question, max_tokens)
        typer.echo(json.dumps({"answer": answer}) if as_json else answer)
        return
    serving = embedded_serving(here.settings)
    asked = [{"role": "user", "content": question}]
    chosen = serving.choose(tenant, model, version=version, key=key) if as_json or version else None
    pinned = chosen.version if chosen else None
    pieces = serving.stream(
        tenant, model, asked, version=pinned, key=key, max_tokens=max_tokens, temperature=0
    )
    if as_json and chosen:
        told = {"answer": "".join(pieces), "version": chosen.version, "digest": chosen.digest}
        typer.echo(json.dumps(told))
        return
    for piece in pieces:
        console.print(piece, end="", markup=False)
    console.print()


def answer_of_base(here: Installation, model: str, question: str, max_tokens: int) -> str:
    """What the base model says, by the train engine, with the template that the model is trained with."""
    return answer_of_base_model(
        here.settings, here.catalog.base_models[here.catalog.models[model].base_model], question, max_tokens
    )
