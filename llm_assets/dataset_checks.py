"""Every tenant's landing zones as `llm-assets check` looks at them, with what was found before kept.

Bounded: after `MOST_SECONDS` no further landing zone is begun. What was found is kept, so the next call goes
on with those that this one had no time for.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.mistakes import Mistake
from llm_assets.datasets import checking
from llm_assets.datasets.checking import Found, Terms, look_into, stamp_of
from llm_assets.datasets.mistakes import DatasetError
from llm_assets.datasets.mistakes import Mistake as RowMistake
from llm_assets.datasets.remarks import FileRemark
from llm_assets.installation.settings import Settings
from llm_assets.landing_zones import zones_of
from resources.beneath import NotFollowedError, opened
from resources.durable_files import replace_json

MOST_SECONDS = 60.0
SHOWN_OF_LANDING_ZONE = 20
KEPT = "dataset_checks.json"  # in the cache


@dataclass(kw_only=True)
class DatasetChecks:
    """`datasets` were looked into; the lines `<tenant>/<model>` in `waiting` have no file yet, and there was
    no time for those in `unseen`.
    """

    mistakes: list[Mistake] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    datasets: int = 0


def check_datasets(
    settings: Settings, catalog: Catalog, *, most_seconds: float = MOST_SECONDS
) -> DatasetChecks:
    """Looks into the landing zone of every tenant and model."""
    if settings.landing_zones_url:
        return _listed(settings, catalog)
    kept = _Kept(settings.cache / KEPT)
    checks = DatasetChecks()
    code, root = _code(), settings.landing_zones
    until = time.monotonic() + most_seconds
    for tenant, model in _lines(catalog):
        landing_zone = root / tenant / model
        if not _holds_something(landing_zone, root):
            checks.waiting.append(f"{tenant}/{model}")
            continue
        recipe = catalog.recipe_for(tenant, model)
        terms = Terms(
            stage=recipe.stage,
            train_on_prompt=recipe.trains_on_prompt,
            holds_out=catalog.models[model].dataset.held_out_fraction > 0,
        )
        limits = settings.dataset_limits
        stamp = _stamp(landing_zone, root, terms, limits, code)
        found = kept.find(f"{tenant}/{model}", stamp)
        if found is None and time.monotonic() > until:
            checks.unseen.append(f"{tenant}/{model}")
            continue
        if found is None:
            found = look_into(landing_zone, root, terms, limits)
            kept.put(f"{tenant}/{model}", stamp, found)
        checks.datasets += 1
        _say(found, landing_zone, catalog.folder.parent, checks)
    kept.write()
    return checks


def _listed(settings: Settings, catalog: Catalog) -> DatasetChecks:
    """Which are there; what a bucket holds is not fetched for a look."""
    held, lines = zones_of(settings).stamps(), [f"{tenant}/{model}" for tenant, model in _lines(catalog)]
    return DatasetChecks(
        warnings=[
            f"the rows in {settings.landing_zones_url} are not read here: a run does, before it trains"
        ],
        waiting=[line for line in lines if line not in held],
        datasets=sum(line in held for line in lines),
    )


def _lines(catalog: Catalog) -> Iterator[tuple[str, str]]:
    for tenant in catalog.tenants.values():
        for model in tenant.models:
            yield tenant.name, model


def _code() -> list[tuple[str, int]]:
    """What found what is kept: other code may find something else."""
    files = sorted(Path(checking.__file__).parent.glob("*.py"))
    return [(file.name, file.stat().st_mtime_ns) for file in files]


def _stamp(landing_zone: Path, root: Path, *more: object) -> str:
    """What cannot be looked into has a stamp that is never found again."""
    try:
        return stamp_of(landing_zone, root, *more)
    except (DatasetError, OSError):
        return f"none at {time.time_ns()}"


def _holds_something(landing_zone: Path, root: Path) -> bool:
    """A new tenant's data may still be on its way: a folder that is empty, or not there, is no mistake."""
    try:
        with opened(root, *landing_zone.relative_to(root).parts) as folder:
            return any(not entry.path.name.startswith(".") for entry in folder.entries())
    except FileNotFoundError:
        return False
    except (NotFollowedError, OSError):  # whoever looks into it says so
        return True


def _say(found: Found, landing_zone: Path, root: Path, checks: DatasetChecks) -> None:
    place = landing_zone.relative_to(root).as_posix()
    shown = found.mistakes[:SHOWN_OF_LANDING_ZONE]
    for each in shown:
        file = Path(each.file)
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else each.file
        checks.mistakes.append(
            Mistake(file=name, line=each.line, field=each.field, problem=each.problem, valid="")
        )
    if found.total > len(shown):
        more = f"has {found.total - len(shown)} more mistakes"
        checks.mistakes.append(Mistake(file=place, line=None, field="", problem=more, valid=""))
    checks.warnings += [f"{place}/{remark}" for remark in found.remarks]


class _Kept:
    """What was found, by landing zone; a file that cannot be read is as good as none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before: dict[str, Any] = {}
        self._found: dict[str, Any] = {}
        if path.is_file():
            try:
                self._before = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:  # everything is looked at anew, and the file written anew
                self._before = {}

    def find(self, line: str, stamp: str) -> Found | None:
        known = self._before.get(line)
        if known is None or known["stamp"] != stamp:
            return None
        self._found[line] = known
        return Found(
            mistakes=tuple(RowMistake(**each) for each in known["mistakes"]),
            total=known["total"],
            remarks=tuple(FileRemark(**each) for each in known["remarks"]),
        )

    def put(self, line: str, stamp: str, found: Found) -> None:
        self._found[line] = {
            "stamp": stamp,
            "mistakes": [vars(mistake) for mistake in found.mistakes],
            "total": found.total,
            "remarks": [remark.as_dict() for remark in found.remarks],
        }

    def write(self) -> None:
        """Only what this call saw: tenants that are gone are forgotten."""
        if self._found != self._before:
            replace_json(self._path, self._found)
