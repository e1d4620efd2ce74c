"""How evidence looks in the Dagster UI: pictures, tables and samples as Markdown metadata."""

import base64
import json
from collections.abc import Mapping, Sequence

import dagster as dg

from resources.artifact_store.artifacts import Artifact
from resources.seams.serving import Backend

CELL_LIMIT = 160


def artifact_metadata(artifact: Artifact) -> dict[str, dg.MetadataValue]:
    """What every materialization says of its artifact."""
    return {
        "dagster/uri": dg.MetadataValue.text(artifact.uri),
        "llm/digest": dg.MetadataValue.text(artifact.digest),
        "llm/version": dg.MetadataValue.text(artifact.version),
        "llm/size_bytes": dg.MetadataValue.int(artifact.size_bytes),
    }


def picture(png: bytes, alt: str) -> dg.MetadataValue:
    """A PNG inside the page itself; Dagster has no picture type."""
    data = base64.b64encode(png).decode()
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{data})")


def table(rows: Sequence[Mapping[str, object]]) -> dg.MetadataValue:
    """A Markdown table of rows with the same columns; long cells are cut."""
    if not rows:
        return dg.MetadataValue.md("(none)")
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def backends_table(backends: Sequence[Backend]) -> dg.MetadataValue:
    """Which versions are live, with which share of the requests."""
    columns = ("version", "weight", "digest")
    return table([{column: getattr(backend, column) for column in columns} for backend in backends])


def as_json(content: Mapping[str, object]) -> dg.MetadataValue:
    return dg.MetadataValue.json(json.loads(json.dumps(content, default=str)))


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= CELL_LIMIT else text[: CELL_LIMIT - 1] + "…"
