"""All landing zones of an installation, `<tenant>/<model>/` below a folder of this machine or in a bucket.

Whether something changed is told by names, sizes and times in a folder, and by names, sizes and the store's
own checksums in a bucket: nothing is read or fetched. Before a landing zone in a bucket is opened, its files
are fetched into a folder of this machine, where the next run finds those that have not changed.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llm_assets.datasets.landing_zone import LandingZone, opened_landing_zone, source_files
from llm_assets.datasets.limits import Limits
from llm_assets.datasets.mistakes import mistake
from llm_assets.folder_stamps import GONE, files_of_dataset, stamp_of, stamps
from llm_assets.installation.settings import Settings
from resources.beneath import Entry
from resources.content_times import time_of
from resources.object_stores.objects import ObjectStore, StoredObject
from resources.object_stores.opening import open_object_store


@dataclass(frozen=True, kw_only=True)
class LandingZones:
    """`folder` holds them, or what is fetched of those in the bucket at `url`."""

    folder: Path
    url: str | None = None

    def stamps(self) -> dict[str, str]:
        """`{"<tenant>/<model>": stamp}` of every landing zone that holds files."""
        if self.url is None:
            return stamps(self.folder, files_of_dataset)
        listed: dict[Path, dict[Path, StoredObject]] = defaultdict(dict)
        for each in open_object_store(self.url).list(""):
            parts = each.key.split("/")
            if len(parts) > 2 and _names_a_file(each.key):
                listed[self.folder.joinpath(*parts[:2])][self.folder / each.key] = each
        found = {path: stamp_of(files_of_dataset(ListedFolder(path, each))) for path, each in listed.items()}
        named = {path.relative_to(self.folder).as_posix(): stamp for path, stamp in found.items()}
        return {name: stamp for name, stamp in named.items() if stamp != GONE}

    def fetch(self, tenant: str, model: str, limits: Limits) -> None:
        """Brings the files of a landing zone here as they are in the bucket; nothing to do for a folder.

        Raises:
            DatasetError: There are none, or they are larger than is read of a dataset.
            ObjectStoreError: The bucket cannot be read.
        """
        if self.url is None:
            return
        store, name = open_object_store(self.url), f"{tenant}/{model}"
        objects = {
            self.folder / each.key: each for each in store.list(f"{name}/") if not each.key.endswith("/")
        }
        listed = ListedFolder(self.folder / name, objects)
        for path, each in objects.items():
            if not _names_a_file(each.key) or not objects.keys().isdisjoint(path.parents):
                raise mistake(path, "cannot be a file of a folder; give the object another key")
        files = source_files(listed)
        if not files:
            problem = f"there is no dataset in {self.url}/{name}/; put its files there"
            raise mistake(listed.path, problem)
        if (total := sum(file.size_bytes for file in files)) > limits.size_bytes:
            raise mistake(listed.path, f"its files have {total:,} bytes together, {limits.over_size}")
        for path in _files_below(listed.path) - {file.path for file in files}:
            path.unlink()
        for file in files:
            _fetch(store, objects[file.path], file.path, file.modified_ns)


def zones_of(settings: Settings) -> LandingZones:
    """Those of an installation."""
    return LandingZones(folder=settings.landing_zones, url=settings.landing_zones_url)


@contextmanager
def opened_zone(settings: Settings, tenant: str, model: str) -> Iterator[LandingZone]:
    """A landing zone as it is now, open as long as the block runs.

    Raises:
        DatasetError: There is none, or a file of it cannot be taken.
    """
    root, limits = settings.landing_zones, settings.dataset_limits
    zones_of(settings).fetch(tenant, model, limits)
    with opened_landing_zone(root / tenant / model, root, limits) as zone:
        yield zone


class ListedFolder:
    """Objects below a prefix, as the folder that they would be."""

    def __init__(self, path: Path, objects: Mapping[Path, StoredObject]) -> None:
        self.path = path
        self._below: dict[Path, dict[Path, Entry]] = {path: {}}
        for file, each in objects.items():
            status = _status(stat.S_IFREG, each.size_bytes, _time_of(each))
            entry = Entry(file, status)
            while entry.path != path:
                self._below.setdefault(entry.path.parent, {}).setdefault(entry.path, entry)
                entry = Entry(entry.path.parent, _status(stat.S_IFDIR, 0, 0))

    def entries(self, *parts: str) -> list[Entry]:
        """What lies in the folder that these names lead to, by name."""
        return sorted(self._below.get(self.path.joinpath(*parts), {}).values(), key=lambda entry: entry.path)


def _names_a_file(key: str) -> bool:
    return "\0" not in key and not any(part in ("", ".", "..") for part in key.split("/"))


def _status(kind: int, size_bytes: int, modified_ns: int) -> os.stat_result:
    whole = (kind | 0o600, 0, 0, 1, 0, 0, size_bytes, 0, modified_ns // 10**9, 0)
    return os.stat_result(whole, {"st_mtime_ns": modified_ns})


def _time_of(each: StoredObject) -> int:
    """Of what its store says of its content, so that every machine gives a fetched file the same one."""
    return time_of(repr((each.size_bytes, sorted(each.checksums.items()))))


def _files_below(folder: Path) -> set[Path]:
    return {Path(place, name) for place, _, names in os.walk(folder) for name in names}


def _fetch(store: ObjectStore, each: StoredObject, path: Path, modified_ns: int) -> None:
    if path.is_file() and (path.stat().st_size, path.stat().st_mtime_ns) == (each.size_bytes, modified_ns):
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.fetched")
    draft.unlink(missing_ok=True)  # of a killed run: of another object, perhaps
    store.download(each.key, draft, lambda _: None)
    os.utime(draft, ns=(modified_ns, modified_ns))
    draft.replace(path)
