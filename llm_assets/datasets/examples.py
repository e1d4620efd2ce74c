"""What a row says, whatever its layout: a conversation, and what is to be learned from it."""

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from llm_assets.datasets.limits import TOO_DEEP, is_too_deep
from llm_assets.datasets.parquet_process import Other
from llm_assets.datasets.remarks import Remark

Role = Literal["user", "assistant", "observation", "function"]

MISSING = object()
KINDS = {"bool": "a boolean", "int": "a number", "float": "a number", "list": "a list", "dict": "an object"}


class Turn(NamedTuple):
    """One message; `masked`: an answer that is read by the model and not learned from."""

    role: Role
    content: str
    masked: bool = False


class Example(NamedTuple):
    """A row, understood.

    `answers` holds one turn; for a preference the chosen and the rejected one; for plain text none.
    `desirable` is the tag of a KTO row.
    """

    turns: tuple[Turn, ...]
    answers: tuple[Turn, ...]
    system: str = ""
    tools: str = ""
    desirable: bool | None = None
    remarks: tuple[Remark, ...] = ()

    @property
    def masks(self) -> bool:
        """Whether an answer in it is not to be learned from."""
        return any(turn.masked for turn in self.turns)

    @property
    def texts(self) -> list[str]:
        """All that the model reads and learns."""
        return [self.system, self.tools, *(turn.content for turn in (*self.turns, *self.answers))]


class Problem(NamedTuple):
    """What is wrong with one field of a row."""

    field: str
    problem: str


class InvalidRow(Exception):
    """A row that cannot be trained on. It never leaves this package: it becomes a mistake of its line."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = problems


def invalid(field: str, problem: str) -> InvalidRow:
    """One single problem, to be raised."""
    return InvalidRow(Problem(field, problem))


def needed_text(row: Mapping[str, object], column: str | None) -> str:
    """The text of a column that every row must have."""
    if column is None:
        return ""
    value = row.get(column, MISSING)
    if isinstance(value, str):
        return value
    if value is MISSING:
        raise invalid(column, f"missing column; the row has {', '.join(row) or 'none at all'}")
    raise invalid(column, f"is {kind(value)}; give a text")


def optional_text(row: Mapping[str, object], column: str | None) -> str:
    """The text of a column that a row may lack: empty then."""
    value = row.get(column) if column else None
    if value is None:
        return ""
    if not isinstance(value, str):
        raise invalid(str(column), f"is {kind(value)}; give a text, or leave it out")
    return value


def tools_text(row: Mapping[str, object], column: str | None) -> str:
    """The tools that a row offers: a list of objects, or the JSON text of one, as JSON text."""
    value = row.get(column) if column else None
    if value is None or value == "" or value == []:
        return ""
    try:
        tools = parsed(value) if isinstance(value, str) else value
    except ValueError as error:
        raise invalid(str(column), f"is not the JSON of a list of tools: {error}") from error
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise invalid(
            str(column), "is not a list of tools, each an object with name, description, parameters"
        )
    try:
        return value if isinstance(value, str) else json.dumps(tools, ensure_ascii=False)
    except TypeError as error:  # a date, or bytes, in Parquet
        raise invalid(
            str(column), f"holds what JSON does not have: {error}; give texts and numbers"
        ) from error


def parsed(text: str) -> Any:
    """The value of a JSON text within a row.

    Raises:
        ValueError: It is no JSON, or nested too deeply for the engine to read.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    if is_too_deep(value):
        raise ValueError(TOO_DEEP)
    return value


def desirable(row: Mapping[str, object], column: str) -> bool:
    """The tag of a KTO row. In CSV every value is a text, so `true` and `false` count as well."""
    value = row.get(column, MISSING)
    if isinstance(value, bool):
        return value
    if value is MISSING:
        raise invalid(column, "missing column; give true for a good answer, false for a bad one")
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise invalid(column, f"is {kind(value)}; give true for a good answer, false for a bad one")


def kind(value: object) -> str:
    """A value's type in JSON's words."""
    if value is None:
        return "null"
    if isinstance(value, Other):
        return f"a {value.type_name}"
    return (
        "a text" if isinstance(value, str) else KINDS.get(type(value).__name__, f"a {type(value).__name__}")
    )
