"""Small pieces of Markdown whose text may come from anywhere: people, datasets, a model's own answers."""

from collections.abc import Iterable, Sequence


def inline(text: object) -> str:
    """One line that breaks neither a table nor the page: no HTML, no new line, no bare `|`."""
    return _plain(" ".join(str(text).split())).replace("|", "\\|")


def quote(text: str) -> str:
    """A block quote that keeps the lines of `text`."""
    lines = _plain(text.strip() or "(an empty answer)").splitlines()
    return "\n".join(f"> {line}  ".rstrip(" ") if not line.strip() else f"> {line}  " for line in lines)


def code(text: str, language: str = "") -> str:
    """A code block that no text within can end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, unit: str = "") -> str:
    """Whole numbers with thousands set apart, others with four digits that count; a dash where unknown."""
    if value is None:
        return "–"
    whole = isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e12)
    text = f"{int(value):,}" if whole else f"{value:.4g}"
    return f"{text} {unit}".strip()


def size(size_bytes: int | None) -> str:
    """Bytes in the unit that people would use."""
    if size_bytes is None:
        return "–"
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= step:
            return f"{size_bytes / step:.3g} {unit}"
    return f"{size_bytes} bytes"


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
