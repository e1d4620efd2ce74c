"""A comparison for a terminal of 80 columns or more."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from llm_assets.comparison.comparing import Change, Comparison
from llm_assets.comparison.markdown import counted, cut, held_out_note, made_with, number_of, shown
from llm_assets.model_cards.markdown import number

STYLES = {"better": "green", "worse": "red", "same": "dim", "": ""}
SIGNS = {"added": "+", "removed": "-", "changed": "~"}
TEXT_CHARACTERS = 200


def comparison_text(comparison: Comparison, *, expand: bool = True) -> RenderableType:
    """What `Console().print` takes; with `expand`, tables are as wide as the terminal."""
    parts = list(_parts(comparison))
    for part in parts:
        if isinstance(part, Table) and not expand:
            part.expand = False
    return Group(*parts)


def _parts(comparison: Comparison) -> Iterator[RenderableType]:
    before, after = comparison.before, comparison.after
    head = (
        f"{comparison.model} of {comparison.tenant}: version {number_of(before)} → version {number_of(after)}"
    )
    yield Text(head, style="bold")
    yield Text(f"{before.label} → {after.label}", style="dim")
    yield _title("Results")
    yield _metrics(comparison)
    if note := held_out_note(comparison.rows):
        yield Text(note, style="yellow")
    yield _title("Answers")
    yield _answers(comparison)
    yield _title("Data", counted(comparison.rows))
    yield Text(f"{str(comparison.dataset.before)[:19]} → {str(comparison.dataset.after)[:19]}", style="dim")
    if comparison.rows.samples:
        yield _rows(comparison)
    for title, changed in made_with(comparison):
        yield _title(title, "" if changed else "the same")
        if changed:
            yield _changes(changed)


def _title(title: str, said: str = "") -> Text:
    return Text.assemble("\n", (title, "bold cyan"), f"  {said}" if said else "")


def _metrics(comparison: Comparison) -> Table:
    table = _grid("measure", f"version {comparison.before.number}", f"version {comparison.after.number}", "")
    for column in (1, 2):
        table.columns[column].justify = "right"
    for each in comparison.metrics:
        judged = Text(each.judgement, style=STYLES[each.judgement])
        table.add_row(each.name, number(each.before), number(each.after), judged)
    return table


def _answers(comparison: Comparison) -> Table:
    table = _wide("question", f"version {comparison.before.number}", f"version {comparison.after.number}")
    for each in comparison.answers:
        same = each.before == each.after
        after = Text("the same", style="dim") if same else _text(each.after)
        table.add_row(_text(each.question), _text(each.before), after)
    return table


def _rows(comparison: Comparison) -> Table:
    table = _wide("asks", "before", "after", sign=True)
    for each in comparison.rows.samples:
        table.add_row(SIGNS[each.kind], _text(each.asked), _text(each.before), _text(each.after))
    return table


def _changes(changed: Sequence[Change]) -> Table:
    table = _wide("", "before", "after")
    for each in changed:
        table.add_row(each.name, _text(each.before), _text(each.after))
    return table


def _text(value: object) -> Text:
    """Text of datasets and models is shown as it is: it is no markup, and it holds no control characters."""
    plain = "".join(letter if letter.isprintable() else " " for letter in cut(shown(value), TEXT_CHARACTERS))
    return Text(plain)


def _grid(*titles: str) -> Table:
    return Table(*titles, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")


def _wide(*titles: str, sign: bool = False) -> Table:
    """Three columns that share the width of the terminal, behind one for a sign."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    if sign:
        table.add_column("", width=1)
    for title in titles:
        table.add_column(title, ratio=1, overflow="fold")
    return table
