"""`llm-assets cache`: the artifacts that lie verified on this node's own disk."""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from llm_assets.cli.options import FAILED, AsJson
from llm_assets.datasets.limits import GIB
from llm_assets.installation.settings import find_settings
from resources.node_cache import Cached, NodeCache

MIB = 2**20

app = typer.Typer(
    help="The node's cache: artifacts on this machine's own disk, verified, shared by all that serves here.",
    no_args_is_help=True,
    add_completion=False,
)

To = Annotated[
    float, typer.Option("--to", min=0, help="At most so many GiB are left, if nothing holds more.")
]


@app.command("status")
def status_command(as_json: AsJson = False) -> None:
    """Says where the cache is, how full, and what lies in it, the least recently used first.

    Example: `llm-assets cache status --json`
    """
    cache = _cache()
    rows = [_row(cache, each) for each in cache.cached()]
    if as_json:
        head = {"root": str(cache.root), "limit_bytes": cache.limit_bytes, "used_bytes": cache.used_bytes()}
        typer.echo(json.dumps({**head, "artifacts": list(map(vars, rows))}, indent=2))
        return
    typer.echo(
        f"{cache.root}: {_size(cache.used_bytes())} of {_size(cache.limit_bytes)}, {len(rows)} artifacts"
    )
    for row in rows:
        typer.echo(f"  {_size(row.size_bytes):>11}  {_ago(row):<10}  {_state(row):<10}  {row.uri}")


@app.command("verify")
def verify_command() -> None:
    """Reads every byte of the cache and names what is damaged. Exit code 1 when something is.

    Example: `llm-assets cache verify`
    """
    cache = _cache()
    damages = 0
    for damage in cache.damages():
        damages += 1
        typer.echo(damage)
    if damages:
        typer.echo(
            f"{damages} damaged. What needs such a file next fetches it again; nothing else is to be done."
        )
        raise typer.Exit(FAILED)
    typer.echo(
        f"All {_size(cache.used_bytes())} of {len(cache.cached())} artifacts are as they were published."
    )


@app.command("prune")
def prune_command(to: To) -> None:
    """Evicts the least recently used artifacts that nothing serves, until the cache is small enough.

    Example: `llm-assets cache prune --to 20`
    """
    cache = _cache()
    cache.prune(to_bytes=round(to * GIB), log=typer.echo)
    used_bytes = cache.used_bytes()
    typer.echo(f"{_size(used_bytes)} are left at {cache.root}.")
    if used_bytes > to * GIB:
        held = ", ".join(each.uri for each in cache.cached() if cache.held(each))
        Console(stderr=True, soft_wrap=True).print(f"These are in use: {held}.", style="yellow", markup=False)
        raise typer.Exit(FAILED)


def _cache() -> NodeCache:
    settings = find_settings()
    return NodeCache(root=settings.artifact_cache, limit_bytes=settings.artifact_cache_bytes)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """An artifact in the cache; `last_used` in ISO 8601."""

    digest: str
    uri: str
    size_bytes: int
    files: int
    last_used: str
    held: bool
    whole: bool


def _row(cache: NodeCache, cached: Cached) -> _Row:
    return _Row(
        digest=cached.digest,
        uri=cached.uri,
        size_bytes=cached.size_bytes,
        files=len(cached.files),
        last_used=datetime.fromtimestamp(cache.last_used(cached), UTC).isoformat(timespec="seconds"),
        held=cache.held(cached),
        whole=cache.whole(cached.digest),
    )


def _state(row: _Row) -> str:
    if row.held:
        return "in use" if row.whole else "coming"
    return "free" if row.whole else "unfinished"


def _ago(row: _Row) -> str:
    seconds = max(0, time.time() - datetime.fromisoformat(row.last_used).timestamp())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB" if size_bytes >= GIB else f"{size_bytes / MIB:.1f} MiB"
