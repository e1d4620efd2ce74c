"""The file that `LLM_ASSETS_PERSONAL_DATA` names: further numbers that name a person."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from llm_assets.catalog.files import Entry, problems_of
from llm_assets.catalog.mistakes import dotted
from llm_assets.catalog.yaml_files import YamlError, read_yaml
from llm_assets.installation.settings import Settings
from resources.audit.places import AuditError
from resources.personal_data.identifiers import FORM_RULE, Identifier, checksum

Texts = Annotated[tuple[str, ...], Field(strict=False)]


class IdentifierEntry(Entry):
    """One kind of number, below its name."""

    name: str = Field(description="what people call it")
    country: str = Field(default="", description="whose it is")
    sure: Texts = Field(default=(), description=f"forms that tell by themselves: {FORM_RULE}")
    forms: Texts = Field(default=(), description=f"forms that need one of `words` near them: {FORM_RULE}")
    words: Texts = Field(default=(), description="how words begin that stand near it")
    called: Texts = Field(
        default=(), description="what it is called; right before one its checksum may not fit"
    )
    check: str | None = Field(default=None, description="a module of python-stdnum, such as es.dni or luhn")

    def identifier(self, kind: str) -> Identifier:
        """Raises ValueError."""
        return Identifier(
            kind=kind,
            country=self.country,
            name=self.name,
            sure=self.sure,
            forms=self.forms,
            words=self.words,
            called=self.called,
            check=checksum(self.check) if self.check else None,
        )


def further_identifiers(settings: Settings) -> list[Identifier]:
    """What the operator added to the platform's own table. Raises AuditError."""
    return read_identifiers(settings.personal_data) if settings.personal_data else []


def read_identifiers(path: Path) -> list[Identifier]:
    """Raises AuditError: it names the file, the line, the kind, what is wrong and what would do."""
    try:
        with path.open("rb") as opened:
            document = read_yaml(opened)
        if document.problems:
            raise document.problems[0]
    except (OSError, YamlError) as error:
        where = f":{error.line}" if isinstance(error, YamlError) and error.line else ""
        raise AuditError(f"LLM_ASSETS_PERSONAL_DATA: {path}{where} cannot be read: {error}") from error
    found = []
    for kind, fields in document.value.items():
        try:
            found.append(IdentifierEntry.model_validate(fields).identifier(kind))
        except ValidationError as error:
            first = problems_of(error, IdentifierEntry)[0]
            what = f"{dotted((kind, *first.place))}: {first.problem}; {first.valid}"
            raise _mistake(path, document.line((kind, *first.place)), what) from error
        except ValueError as error:
            raise _mistake(path, document.line((kind,)), str(error)) from error
    return found


def _mistake(path: Path, line: int, what: str) -> AuditError:
    return AuditError(f"LLM_ASSETS_PERSONAL_DATA: {path}:{line}: {what}")
