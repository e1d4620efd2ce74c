"""`llm-assets links`: the addresses of the Dagster UI and MLflow, each with a token that opens it."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, get_args
from urllib.parse import quote

import typer
from rich.console import Console

from llm_assets.catalog.loading import Catalog
from llm_assets.cli.installation import installation
from llm_assets.cli.options import AsJson
from llm_assets.cli.output import output
from llm_assets.stack import Stack
from resources.consoles.consoles import Access
from resources.dagster_ui.console import LINEAGE_PAGE
from resources.mlflow.server import MODELS_PAGE, MlflowServer

GROUP_PREFIX = "global@global:"  # how the page of Dagster 1.13 calls a group of no single code location
EXPANDED_GROUPS = 8  # more of them make a picture that nobody can read


@dataclass(frozen=True, kw_only=True)
class Link:
    """Opens `title` in a browser; `address` is the same page without the token."""

    title: str
    access: Access
    link: str
    address: str


ReadOnly = Annotated[bool, typer.Option("--read-only", help="Only those that can change nothing.")]


def links(read_only: ReadOnly = False, as_json: AsJson = False) -> None:
    """Prints a full and a read-only link for the Dagster UI and for MLflow. Who has one needs nothing else.

    Example: `llm-assets links --read-only`
    """
    here = installation()
    found = [
        each
        for each in links_of(Stack(profile=here.profile), here.catalog)
        if not read_only or each.access == "read-only"
    ]
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
    else:
        print_links(output(), found)


def links_of(stack: Stack, catalog: Catalog) -> Iterator[Link]:
    pages, mlflow = [("Dagster UI", stack.ui_console, lineage_page(catalog))], stack.profile.mlflow
    if isinstance(mlflow, MlflowServer):
        pages.append(("MLflow", mlflow.console, MODELS_PAGE))
    for title, console, page in pages:
        for access in get_args(Access):
            link = console.link(access, page)
            yield Link(title=title, access=access, link=link, address=console.url + page)
    if not isinstance(mlflow, MlflowServer):
        address = mlflow.url.rstrip("/") + MODELS_PAGE
        yield Link(title="MLflow", access="full", link=address, address=address)


def lineage_page(catalog: Catalog) -> str:
    """The graph with its groups open: Dagster shows each as a closed box otherwise."""
    groups = ["base_models", *sorted(catalog.models)]
    if len(groups) > EXPANDED_GROUPS:
        return LINEAGE_PAGE
    opened = ",".join(f"{GROUP_PREFIX}{group}" for group in groups)
    return f"{LINEAGE_PAGE}?expanded={quote(opened, safe='')}"


def show_links(console: Console, stack: Stack, catalog: Catalog) -> None:
    """As `llm-assets links`; without the tokens where what is printed goes to the journal."""
    if not _into_the_journal():
        print_links(console, links_of(stack, catalog))
        return
    for each in links_of(stack, catalog):
        if each.access == "full":
            print_line(console, each.title, each.address)
    print_line(console, "their tokens", "`llm-assets links`")


def print_links(console: Console, found: Iterator[Link] | list[Link]) -> None:
    for each in found:
        title = each.title if each.access == "full" else f"{each.title}, {each.access}"
        print_line(console, title, each.link)


def print_line(console: Console, name: str, address: str) -> None:
    console.print(f"  {name:<24} [cyan]{address}[/]", highlight=False, soft_wrap=True)


def _into_the_journal() -> bool:
    """Of systemd, which keeps it for others to read (systemd.exec(5): JOURNAL_STREAM)."""
    try:
        output = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{output.st_dev}:{output.st_ino}"
