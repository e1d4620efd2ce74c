"""What all files of a catalog have in common: closed, frozen pydantic models, and mistakes in their words."""

from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from llm_assets.catalog.mistakes import Place, Problem, did_you_mean, one_of, shown


class Entry(BaseModel):
    """A file, or a part of one. Unknown fields are mistakes; nothing is turned into another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def problems_of(error: ValidationError, entry: type[Entry]) -> list[Problem]:
    """Every complaint of pydantic, said as a catalog says it."""
    return [_problem(complaint, entry) for complaint in error.errors(include_url=False)]


def _problem(complaint: ErrorDetails, entry: type[Entry]) -> Problem:
    place: Place = complaint["loc"]
    around, rule = _looked_up(entry, place)
    found = shown(complaint["input"])
    match complaint["type"]:
        case "extra_forbidden":
            problem, valid = "unknown field", did_you_mean(str(place[-1]), around, otherwise=one_of(around))
        case "missing":
            problem, valid = "missing", rule
        case "literal_error":
            problem, valid = f"{found} is not taken", f"one of {complaint['ctx']['expected']}"
        case "value_error":
            problem, _, valid = str(complaint["ctx"]["error"]).partition("; ")
        case "model_type":
            problem, valid = f"{found} is not a mapping of fields", one_of(around)
        case _:
            expected = complaint["msg"].removeprefix("Input should be ")
            problem, valid = f"{found} is not {expected}", rule
    return Problem(place=place, problem=problem, valid=valid)


def _looked_up(entry: type[Entry], place: Place) -> tuple[Iterable[str], str]:
    """The fields beside (or, for a mapping, within) a place, and what its own description says."""
    fields, rule = entry.model_fields, ""
    around = [name for name in fields if name != "name"]
    for step in place:
        field = fields.get(step) if isinstance(step, str) else None
        if field is None:
            break
        rule = field.description or ""
        within = next(
            (part for part in (field.annotation, *get_args(field.annotation)) if _is_entry(part)), None
        )
        if within is None:
            break
        fields = within.model_fields
        around = list(fields)
    return around, rule


def _is_entry(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, Entry)
