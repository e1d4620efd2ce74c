"""Under `llm-assets up` the graph follows the catalog: a new or changed model reloads the code location.

The location is built from `base_models/` and `models/` when it is loaded; tenants, datasets and experiments
are watched by its sensors. A catalog with mistakes is not loaded: the graph stays as it is, and that is said.
Not covered: a `dagster dev` of one's own, where the location is reloaded by hand.
"""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from llm_assets.catalog.loading import Catalog, load_catalog
from llm_assets.catalog.mistakes import CatalogError
from llm_assets.catalog.stamps import FOLDERS, GRAPH_FOLDERS, Stamp, stamp_of
from llm_assets.installation.settings import Settings
from llm_assets.loaded_locations import LoadedLocations, ReloadError

LOOK_S = 2.0


@dataclass(kw_only=True)
class FollowedCatalog:
    """Looks at the catalog's files every `look_s` seconds. `begin` with what the location has loaded."""

    settings: Settings
    locations: LoadedLocations
    say: Callable[[str], None]
    look_s: float = LOOK_S
    _shown: dict[str, str] | None = None
    _seen: Stamp | None = None
    _dealt_with: Stamp | None = None
    _mistaken: bool = False
    _fault: str | None = None

    def begin(self, loaded: Catalog | None) -> None:
        """None: the UI ran already, and nobody knows with which catalog."""
        if loaded:
            self._shown, self._dealt_with = _graph(loaded), self._stamp()

    def follow(self, ended: threading.Event) -> None:
        while not ended.wait(self.look_s):
            self.look()

    def look(self) -> None:
        """Reloads if files changed, have come to rest, and say something else than what is shown."""
        before, self._seen = self._seen, self._stamp()
        if self._seen == self._dealt_with or before != self._seen:
            return
        self._dealt_with, self._mistaken = self._seen, False
        try:
            self._show(load_catalog(self.settings.catalog))
        except CatalogError as error:
            mistakes = "a mistake" if len(error.mistakes) == 1 else f"{len(error.mistakes)} mistakes"
            self.say(
                f"The catalog changed and has {mistakes}, so the UI keeps the models that it has. "
                "`llm-assets check` lists them."
            )
            self._mistaken = True
            self._dealt_with = self._stamp()
        except ReloadError as error:
            self.say(f"The catalog changed. {error} It is tried again.")
            self._dealt_with = None

    def _show(self, catalog: Catalog) -> None:
        now = _graph(catalog)
        if now == self._shown:
            return
        self.locations.reload()
        self.say(_told(self._shown, now))
        self._shown = now
        for fault in self.locations.faults():
            self.say(fault)

    def _say_once(self, fault: str | None) -> None:
        if fault and fault != self._fault:
            self.say(fault)
        self._fault = fault or self._fault

    def _stamp(self) -> Stamp:
        """After a mistake, which may lie in any file, of all files."""
        self._say_once(self.settings.follow_catalog())
        return stamp_of(self.settings.catalog, FOLDERS if self._mistaken else GRAPH_FOLDERS)


def _graph(catalog: Catalog) -> dict[str, str]:
    """What the definitions are built from: a hash of each base model and model."""
    entries = {"base model": catalog.base_models, "model": catalog.models}
    return {
        f"{kind} {name}": hashlib.sha256(repr(entry).encode()).hexdigest()
        for kind, known in entries.items()
        for name, entry in known.items()
    }


def _told(before: dict[str, str] | None, now: dict[str, str]) -> str:
    if before is None:
        return "The code location was reloaded."
    kinds = {
        "new": now.keys() - before.keys(),
        "gone": before.keys() - now.keys(),
        "changed": {name for name in now.keys() & before.keys() if now[name] != before[name]},
    }
    told = (f"{kind}: {', '.join(sorted(names))}" for kind, names in kinds.items() if names)
    return f"The code location was reloaded ({'; '.join(told)})."
