"""Can Dagster build the code location? Answered in this process, by what a code server does at its start."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._check import CheckError

from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.mistakes import CatalogError, Mistake
from llm_assets.graph import build_definitions
from llm_assets.installation.settings import Settings


def check_location(settings: Settings, catalog: Catalog) -> None:
    """Builds every asset, job, sensor and schedule, as a code server does when it loads them.

    Raises:
        CatalogError: Dagster refuses the definitions of this catalog; the text names the innermost cause.
        SettingsError: A resource cannot be made, because a setting has a value that cannot be used.
    """
    with refusals_explained(catalog):
        dg.Definitions.validate_loadable(build_definitions(settings, catalog))


@contextmanager
def refusals_explained(catalog: Catalog) -> Iterator[None]:
    """What Dagster refuses in here is a mistake of the catalog."""
    try:
        yield
    except (dg.DagsterError, CheckError) as error:
        problem = f"Dagster cannot build the definitions: {_innermost(error)}"
        valid = (
            "another name for what is named there; if that is none of yours, report a defect of llm-assets"
        )
        mistake = Mistake(file=catalog.folder.name, line=None, field="", problem=problem, valid=valid)
        raise CatalogError(catalog.folder, [mistake]) from error


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip()
