"""Follows the catalog's files: which tenants there are now, with only what changed read again.

A tenant whose file has a mistake stays as it was and keeps nobody else from changing. A mistake in a base
model or a model keeps every tenant as it was.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from llm_assets.catalog.mistakes import Mistake, dotted
from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.reading import SUFFIX, Reading
from llm_assets.catalog.tenants import Jwt, TenantEntry, issuer_conflicts

_FOLDERS = ("base_models", "models", "tenants")

_Stamp = tuple[int, int, int]
"""Inode, size and modification time of a file."""


@dataclass(kw_only=True)
class CatalogChanges:
    """The tenants and models as they were last good. `say` hears of each mistake once.

    `in_force` is what the gateway goes by, held tenants' included: the issuer that a tenant names belongs to
    it for as long, whatever has become of its file and whoever reads the files now. `read` is whether they
    ever were; `held` are tenants that are there, but whose files are wrong.
    """

    folder: Path
    say: Callable[[str], None]
    in_force: Callable[[], Mapping[str, Jwt]]
    tenants: dict[str, TenantEntry] = field(default_factory=dict)
    models: dict[str, ModelEntry] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    read: bool = False
    _seen: dict[str, dict[str, _Stamp]] = field(default_factory=dict)
    _said: frozenset[Mistake] = frozenset()

    def look(self) -> bool:
        """Reads what changed since the last look; whether anything did."""
        now = {folder: _stamps(self.folder / folder) for folder in _FOLDERS}
        if now == self._seen:
            return False
        before, self._seen = self._seen, now
        tenants = now["tenants"]
        if all(now[folder] == before.get(folder) for folder in ("base_models", "models")):
            known = before.get("tenants", {})
            self.held |= {_name(file) for file, stamp in tenants.items() if known.get(file) != stamp}
        else:
            self.held |= {_name(file) for file in tenants}
        self._read({_name(file) for file in tenants})
        return True

    def _read(self, present: set[str]) -> None:
        reading = Reading(self.folder)
        models = reading.models(reading.base_models())
        read = {} if reading.mistakes else reading.tenants(models, only=self.held)
        wrong = {_tenant_of(mistake) for mistake in reading.mistakes}
        mistakes = set(reading.mistakes)
        if None not in wrong:
            good = {name: entry for name, entry in read.items() if name not in wrong}
            mistakes |= self._take(models, good, present)
        for mistake in sorted(mistakes - self._said):
            self.say(f"{mistake}. What was there before goes on.")
        self._said = frozenset(mistakes)

    def _take(
        self, models: dict[str, ModelEntry], good: dict[str, TenantEntry], present: set[str]
    ) -> set[Mistake]:
        """Everything good counts now, but for what is at odds with a tenant that was there before."""
        kept = {name: entry for name, entry in self.tenants.items() if name in present}
        told = {name: jwt for name, jwt in self.in_force().items() if name in present and name not in kept}
        counting = told | {name: entry.jwt for name, entry in kept.items() if entry.jwt}
        mistakes = set()
        for name, problem in issuer_conflicts({n: entry.jwt for n, entry in good.items()}, counting).items():
            file = f"{self.folder.name}/tenants/{name}{SUFFIX}"
            what = {"field": dotted(problem.place), "problem": problem.problem, "valid": problem.valid}
            mistakes.add(Mistake(file=file, line=None, **what))
            del good[name]
        self.models, self.tenants, self.read = models, kept | good, True
        self.held = (self.held - good.keys()) & present
        return mistakes


def _stamps(folder: Path) -> dict[str, _Stamp]:
    """Of every YAML file by name. A folder that is missing has none; reading it says so."""
    stamps = {}
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                with suppress(FileNotFoundError):  # replaced or gone since it was listed
                    stat = entry.stat()
                    stamps[entry.name] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return stamps


def _name(file: str) -> str:
    return file.removesuffix(SUFFIX)


def _tenant_of(mistake: Mistake) -> str | None:
    """The tenant whose file has the mistake; None where it is everybody's."""
    _, _, place = mistake.file.partition("/")
    folder, _, file = place.partition("/")
    return _name(file) if folder == "tenants" and file else None
