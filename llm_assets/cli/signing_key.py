"""`llm-assets signing-key`: what artifacts and the audit log are signed with, and what comes after it."""

import json
from contextlib import closing

import typer
from rich.table import Table

from llm_assets.audit_log import sealer_of
from llm_assets.cli.options import AsJson
from llm_assets.cli.output import output
from llm_assets.installation.settings import find_settings
from llm_assets.operator import operator
from resources.audit.places import PLATFORM
from resources.signing.keys import prepare, role_of, rotate, trusted_keys

app = typer.Typer(
    help="The installation's signing key: listed, prepared, rotated.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """Says which keys are trusted, which of them signs, and which will sign next.

    Example: `llm-assets signing-key list`
    """
    folder = find_settings().keys
    found = [(key.key_id, role_of(folder, key.key_id)) for key in trusted_keys(folder)]
    if as_json:
        typer.echo(json.dumps([{"id": key_id, "role": role} for key_id, role in found], indent=2))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("Id", no_wrap=True, overflow="fold")
    table.add_column("Role", no_wrap=True)
    for key_id, role in found:
        table.add_row(key_id, role)
    output().print(table)


@app.command("prepare")
def prepare_command() -> None:
    """Makes the key that will sign next and prints its id. It is trusted from now on, and signs nothing yet.

    Example: `llm-assets signing-key prepare`
    """
    settings = find_settings()
    key_id = prepare(settings.keys)
    _record("signing_key_prepared", key=key_id)
    typer.echo(key_id)
    typer.echo(f"Its public key is {settings.keys / f'{key_id}.pub'}: give it to who verifies.", err=True)


@app.command("rotate")
def rotate_command() -> None:
    """Lets the prepared key sign from now on. The old one is destroyed; what it signed stays trusted.

    Example: `llm-assets signing-key rotate`
    """
    settings = find_settings()
    old, new = rotate(settings.keys)
    _record("signing_key_rotated", old=old, new=new)
    typer.echo(f"{new} signs from now on; what {old} signed stays trusted.")


def _record(event: str, **facts: str) -> None:
    """In the chain of what belongs to no tenant."""
    with closing(sealer_of(find_settings())) as sealer:
        sealer.record_event(PLATFORM, event, by=operator(), **facts)
