"""Objects as files below a folder: a disk, NFS, or a ReadWriteMany volume.

An object appears by one rename or one hard link of a finished file, and is on the disk once the next `create`
returned: what is written before a manifest outlives a power cut if the manifest does. Objects never change in
place, so copies inside the store share their bytes as hard links; so does an uploaded file of the same disk,
which its owner must not change afterwards. Memory: two blocks of 1 MiB for each transfer. Not covered: file
systems without hard links (SMB, some FUSE mounts), where `create` fails with the system's error.
"""

import hashlib
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from resources.hashes import sha256_of
from resources.object_stores.disk_files import (
    appear,
    appear_alone,
    bring,
    copy_inside,
    files_below,
    linked,
    remove_empty_folders,
    settle,
)
from resources.object_stores.free_space import disk_errors_named
from resources.object_stores.hashing import pour
from resources.object_stores.objects import (
    UNFINISHED,
    Moved,
    Names,
    ObjectStoreError,
    StoredObject,
    Transferred,
    checked_key,
    checked_prefix,
    missing,
)

LEFT_OVER_S = 24 * 3600.0
"""A temporary file that nobody touched for so long was left by a killed writer."""


class DiskStore:
    """The objects below `root`."""

    def __init__(self, root: Path, *, left_over_s: float = LEFT_OVER_S) -> None:
        if not root.is_absolute():
            raise ObjectStoreError(
                f"The object store file:{root} needs an absolute path: file:/srv/artifacts."
            )
        self.root = root
        self.url = f"file:{root}"
        self._temporaries = root / f"{UNFINISHED}writes"
        self._left_over_s = left_over_s
        self._cleared = False

    def list(self, prefix: str) -> Iterator[StoredObject]:
        base = self.root / checked_prefix(self.url, prefix)
        with self._named("list", prefix):
            found = sorted((path.relative_to(self.root).as_posix(), path) for path in files_below(base))
        for key, path in found:
            with suppress(FileNotFoundError):  # deleted meanwhile
                yield StoredObject(key=key, size_bytes=path.stat().st_size, checksums={})

    def folders(self, prefix: str) -> Names:
        base = self.root / checked_prefix(self.url, prefix)
        with self._named("list", prefix):
            children = [child for child in base.iterdir() if child.is_dir()] if base.is_dir() else []
            return sorted(child.name for child in children if self._holds_objects(child))

    def read(self, key: str) -> bytes:
        with self._present("read", key) as path:
            return path.read_bytes()

    def create(self, key: str, content: bytes) -> bool:
        target = self._path(key)
        with self._named("create", key), self._temporary() as temporary:
            settle(self.root)
            temporary.write_bytes(content)
            return appear_alone(temporary, target)

    def upload(self, source: Path, key: str, moved: Moved) -> Transferred:
        target = self._path(key)
        with self._named("write", key), self._temporary() as temporary:
            transferred = bring(source, temporary, moved)
            appear(temporary, target)
            return transferred

    def adopt(self, source: Path, key: str) -> bool:
        """Takes a file of the same disk in without reading it; False where it would have to be copied."""
        with self._named("write", key), self._temporary() as temporary:
            if not linked(source, temporary):
                return False
            appear(temporary, self._path(key))
            return True

    def path(self, key: str) -> Path:
        """Where an object or a folder of objects lies."""
        return self._path(key)

    def download(self, key: str, target: Path, moved: Moved) -> Transferred:
        doing = f"The object store {self.url} could not read {key!r} into {target}"
        hasher = hashlib.sha256()
        with self._present("read", key) as path:
            stream = path.open("rb")
        with (
            stream,
            disk_errors_named(doing, disk=f"the folder {target.parent}", path=target.parent),
            target.open("a+b") as written,
        ):
            written.seek(0)
            there = pour(written, None, lambda _: None, hasher)
            stream.seek(there)
            size_bytes = there + pour(stream, written, moved, hasher)
        return Transferred(size_bytes=size_bytes, sha256=hasher.hexdigest())

    def copy(self, source: str, key: str) -> None:
        target = self._path(key)
        with self._present("copy", source) as original, self._temporary() as temporary:
            copy_inside(original, temporary)
            appear(temporary, target)

    def matches(self, stored: StoredObject, source: Path) -> Transferred | None:
        with self._present("compare", stored.key) as path:
            size_bytes = source.stat().st_size
            if path.stat().st_size != size_bytes:
                return None
            wanted = sha256_of(source)
            if not path.samefile(source) and sha256_of(path) != wanted:
                return None
            return Transferred(size_bytes=size_bytes, sha256=wanted)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._named("delete", key):
            path.unlink(missing_ok=True)
            remove_empty_folders(path.parent, self.root)

    def _holds_objects(self, folder: Path) -> bool:
        return not folder.name.startswith(UNFINISHED) and any(True for _ in files_below(folder))

    def _path(self, key: str) -> Path:
        return self.root / checked_key(self.url, key)

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A name for a file that is not an object yet; what still has it at the end is removed."""
        if not self._cleared:
            self._temporaries.mkdir(parents=True, exist_ok=True)
            self._clear_left_overs()
        path = self._temporaries / f"{UNFINISHED}{uuid.uuid4().hex}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _clear_left_overs(self) -> None:
        """Deletes, once for each opened store, the temporaries of killed writers."""
        self._cleared = True
        for left in self._temporaries.iterdir():
            with suppress(FileNotFoundError):  # its writer finished
                if time.time() - left.stat().st_ctime > self._left_over_s:
                    left.unlink()

    @contextmanager
    def _present(self, verb: str, key: str) -> Iterator[Path]:
        """The file of `key`, which must be there."""
        path = self._path(key)
        if not path.is_file():
            raise missing(self.url, key)
        with self._named(verb, key):
            yield path

    def _named(self, verb: str, key: str) -> AbstractContextManager[None]:
        doing = f"The object store {self.url} could not {verb} {key!r}"
        return disk_errors_named(doing, disk=f"the object store {self.url}", path=self.root)
