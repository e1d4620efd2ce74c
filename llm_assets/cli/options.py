"""Arguments and options that several commands share, with their completion."""

from typing import Annotated

import typer

from resources.errors import InputError

FAILED, MISUSED, INTERRUPTED = 1, 2, 130  # exit codes


class UsageError(InputError):
    """The command names something that the catalog does not have."""


def _stems(folder: str, incomplete: str) -> list[str]:
    from llm_assets.installation.files import SettingsError  # pydantic: needed here alone
    from llm_assets.installation.settings import find_settings

    try:
        files = sorted((find_settings().catalog / folder).glob("*.yaml"))
    except SettingsError:
        return []  # Completion outside a project offers nothing.
    return [file.stem for file in files if file.stem.startswith(incomplete)]


def _models(incomplete: str) -> list[str]:
    return _stems("models", incomplete)


def tenant_names(incomplete: str) -> list[str]:
    return _stems("tenants", incomplete)


Model = Annotated[str, typer.Argument(help="A model of the catalog.", autocompletion=_models)]
Tenant = Annotated[
    str, typer.Option("--tenant", "-t", help="A tenant that uses the model.", autocompletion=tenant_names)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
Why = Annotated[str, typer.Option("--why", help="The reason, kept with the promotion.")]
