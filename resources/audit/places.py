"""Where the audit log of one installation lies.

<folder>/log/<tenant>/<first seq>.jsonl          records, see `records.py`; the last one is open
<folder>/log/<tenant>/<first seq>.seal.json      what closed it: a signed statement
<folder>/log/<tenant>/<first seq>.deleted.json   the signed proof that a segment was deleted when it was due
<folder>/log/<tenant>/head.json                  the signed statement of the newest sealed record
<keys>/<tenant>/                                 the keys of its data subjects, see `subject_keys.py`; <keys>
                                                 is <folder>/keys or another folder, apart from the log
<keys>/id, <folder>/subject-keys.id              which keys belong to which log: both hold the same
<folder>/index.db, <folder>/positions/           derived: may be deleted
<folder>/run-time.json                           how long this installation has run, see `run_time.py`
<folder>/locks/<tenant>.lock                     whoever changes a tenant's log holds it
"""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resources.durable_files import private_folder, replace_file
from resources.errors import LlmAssetsError
from resources.names import TENANT

PLATFORM = "_platform"
"""The chain of what belongs to no tenant: requests with an unknown key, lines that nobody can read."""

SEQ_DIGITS = 12
KEYS, KEYS_ID, LOGS_KEYS_ID = "keys", "id", "subject-keys.id"


class AuditError(LlmAssetsError):
    """The audit log cannot be written, read or trusted."""


@dataclass(frozen=True, kw_only=True)
class AuditPlaces:
    """The folders of one audit log. `subject_keys`: where those keys lie, if not below it."""

    folder: Path
    subject_keys: Path | None = None

    @property
    def index(self) -> Path:
        return self.folder / "index.db"

    @property
    def run_time(self) -> Path:
        return self.folder / "run-time.json"

    @property
    def positions(self) -> Path:
        return self.folder / "positions"

    def log(self, tenant: str) -> Path:
        return self.folder / "log" / checked_tenant(tenant)

    @property
    def keys_root(self) -> Path:
        return self.subject_keys or self.folder / KEYS

    def keys(self, tenant: str) -> Path:
        return self.keys_root / checked_tenant(tenant)

    def pair_keys(self) -> None:
        """Makes sure that these keys are those of this log; of two that are new, a pair.

        Raises:
            AuditError: They are another log's, or not there: a folder that is not mounted is empty, and new
                keys in it would leave nobody able to read or erase what is kept.
        """
        if self._key_ids()[0] is None:
            with self.lock(PLATFORM):
                self._make_pair()
        if fault := self.keys_fault():
            raise AuditError(fault)

    def _make_pair(self) -> None:
        here, there = self._key_ids()
        if here is None and self.keys_fault() is None:
            id = there or uuid.uuid4().hex
            if there is None:
                replace_file(self.keys_root / KEYS_ID, id, sync_folder=True)
            replace_file(self.folder / LOGS_KEYS_ID, id, sync_folder=True)

    def keys_fault(self) -> str | None:
        """Why these keys are not those of this log; None where they are, or where both are new."""
        here, there = self._key_ids()
        before = self.folder / KEYS
        others = f"The keys of data subjects in {self.keys_root} are another audit log's than {self.folder}."
        if here is None and self.keys_root != before and _tenants_in(before):
            return f"The keys of data subjects lie in {before}: move all of it to {self.keys_root}."
        if here is None:
            return others if there is not None and _tenants_in(self.keys_root) else None
        if there is None:
            return (
                f"The keys of data subjects of {self.folder} are not in {self.keys_root}: mount it, or set "
                "LLM_ASSETS_AUDIT_KEYS to where they are. Nothing is sealed meanwhile; the spool keeps it."
            )
        return None if here == there else others

    def _key_ids(self) -> tuple[str | None, str | None]:
        paths = self.folder / LOGS_KEYS_ID, self.keys_root / KEYS_ID
        here, there = (path.read_text() if path.is_file() else None for path in paths)
        return here, there

    def tenants(self) -> list[str]:
        """Who has a chain, sorted."""
        return _tenants_in(self.folder / "log")

    def tenants_with_keys(self) -> list[str]:
        """Whose subjects have keys, so who had records, sorted."""
        return _tenants_in(self.keys_root)

    @contextlib.contextmanager
    def lock(self, tenant: str) -> Iterator[None]:
        """One writer per tenant at a time, in whatever process; freed when its holder dies."""
        folder = private_folder(self.folder / "locks")
        descriptor = os.open(folder / f"{checked_tenant(tenant)}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _tenants_in(folder: Path) -> list[str]:
    """A mount has a lost+found as well."""
    names = [entry.name for entry in os.scandir(folder) if entry.is_dir()] if folder.is_dir() else []
    return sorted(name for name in names if _is_tenant(name))


def _is_tenant(name: str) -> bool:
    return name == PLATFORM or TENANT.fullmatch(name) is not None


def checked_tenant(tenant: str) -> str:
    if not _is_tenant(tenant):
        raise AuditError(f"{tenant!r} cannot be a tenant: a DNS label such as team-a is.")
    return tenant
