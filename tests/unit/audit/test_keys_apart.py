"""The keys of data subjects apart from the log that they open, and backups of both."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from resources.audit.backups import CheckedBackup, check_backup
from resources.audit.personal_text import Pseudonymizer
from resources.audit.places import AuditError, AuditPlaces
from resources.audit.sealing import Sealer
from resources.audit.searching import ERASED, Query, opened, search
from resources.audit.statements import Signing
from resources.audit.subject_keys import SLOTS, SubjectKeys
from tests.unit.audit.conftest import Log

NAME = "anna.nowak@example.org"


def sealer(log: Log, keys: Path) -> Sealer:
    places = AuditPlaces(folder=log.places.folder, subject_keys=keys)
    return Sealer(places, log.home / "keys", Pseudonymizer())


def event(made: Sealer) -> None:
    made.record_event("team-a", "access", by="auditor", command="search")


def test_keys_that_lie_apart_open_and_erase_what_the_log_keeps(log: Log, tmp_path: Path) -> None:
    log.places = AuditPlaces(folder=log.places.folder, subject_keys=tmp_path / "mount" / "keys")
    log.begin()
    log.fill(2, subject=NAME)
    assert not (log.places.folder / "keys").exists()
    assert (tmp_path / "mount" / "keys" / "team-a" / SLOTS).stat().st_mode & 0o077 == 0
    (record, _) = search(log.places, log.sealer.index, Query(tenant="team-a", subject=NAME))
    keys = SubjectKeys(log.places.keys("team-a"))
    keys.begin()
    assert opened(record, keys)["personal"]["subject"] == NAME
    assert log.sealer.erase("team-a", NAME, by="dpo", reason="asked")
    keys.begin()
    assert opened(record, keys)["personal"] == ERASED


def test_keys_are_moved_with_all_that_is_in_their_folder(log: Log, tmp_path: Path) -> None:
    log.fill(2, subject=NAME)
    apart = tmp_path / "mount" / "keys"
    with pytest.raises(AuditError, match=r"are not in .*mount it, or set LLM_ASSETS_AUDIT_KEYS"):
        event(sealer(log, apart))
    assert not apart.exists(), "nothing is begun there"
    apart.parent.mkdir()
    log.places.keys_root.rename(apart)
    event(sealer(log, apart))
    places = AuditPlaces(folder=log.places.folder, subject_keys=apart)
    assert len(list(search(places, log.sealer.index, Query(tenant="team-a", subject=NAME)))) == 2


def test_a_log_from_before_says_what_to_move(log: Log, tmp_path: Path) -> None:
    """It was written when keys and log were not paired yet."""
    log.fill(1)
    (log.places.keys_root / "id").unlink()
    (log.places.folder / "subject-keys.id").unlink()
    with pytest.raises(AuditError, match=f"move all of it to {tmp_path / 'apart'}"):
        event(sealer(log, tmp_path / "apart"))
    log.fill(1)
    assert log.places.keys_fault() is None


def test_a_mount_that_is_gone_stops_sealing_and_loses_nothing(
    log: Log, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mount, away = tmp_path / "mount", tmp_path / "away"
    log.places = AuditPlaces(folder=log.places.folder, subject_keys=mount)
    log.begin()
    log.fill(1)
    mount.rename(away)
    mount.mkdir()
    ids = [log.spool.exchange() for _ in range(3)]
    log.collector.step()
    assert log.collector.behind == 3
    assert "mount it" in caplog.text
    assert list(mount.iterdir()) == []
    mount.rmdir()
    away.rename(mount)
    assert log.collect() == 3
    assert [record["id"] for record in log.records()][1:] == ids


def test_the_keys_of_another_log_are_refused(log: Log, tmp_path: Path) -> None:
    other = Log(tmp_path / "other")
    other.fill(1)
    other.close()
    log.fill(1)
    for folder in (log.home, tmp_path / "new"):
        places = AuditPlaces(folder=folder / "audit", subject_keys=other.places.keys_root)
        with pytest.raises(AuditError, match="are another audit log's"):
            Sealer(places, log.home / "keys", Pseudonymizer()).record_event("team-a", "access", by="x")


@pytest.fixture
def backup(log: Log, tmp_path: Path) -> Path:
    """Of a log with two subjects, one of them erased."""
    log.fill(3, subject=NAME)
    log.fill(2, subject="somebody else")
    log.sealer.erase("team-a", "somebody else", by="dpo", reason="asked")
    return shutil.copytree(log.home, tmp_path / "backup")


def checked(backup: Path) -> CheckedBackup:
    before = sorted(path.relative_to(backup) for path in backup.rglob("*"))
    (found,) = check_backup(AuditPlaces(folder=backup / "audit"), Signing(backup / "keys"))
    assert sorted(path.relative_to(backup) for path in backup.rglob("*")) == before, "nothing was written"
    return found


def test_a_backup_that_could_be_restored_says_what_opens_and_what_was_erased(backup: Path) -> None:
    found = checked(backup)
    assert (found.records, found.erased, found.faults) == (6, 2, ())
    assert found.opened == 3 + 5, "each has an actor of its own, who was not erased"


def older_keys(log: Log, backup: Path) -> None:
    """They were backed up before the newest subject came."""
    log.fill(1, subject="somebody new")
    shutil.rmtree(backup / "audit" / "log")
    shutil.copytree(log.places.folder / "log", backup / "audit" / "log")


def keys_from_before_the_erasure(log: Log, backup: Path) -> None:
    shutil.rmtree(backup / "audit" / "keys")
    shutil.copytree(log.places.keys_root, backup / "audit" / "keys")
    log.sealer.erase("team-a", NAME, by="dpo", reason="asked")
    shutil.rmtree(backup / "audit" / "log")
    shutil.copytree(log.places.folder / "log", backup / "audit" / "log")


def damaged_keys(_: Log, backup: Path) -> None:
    path = backup / "audit" / "keys" / "team-a" / SLOTS
    path.write_bytes(path.read_bytes()[:40] + bytes(10) + path.read_bytes()[50:])


def damaged_log(_: Log, backup: Path) -> None:
    path = next((backup / "audit" / "log" / "team-a").glob("*.jsonl"))
    path.write_bytes(path.read_bytes().replace(b'"status":200', b'"status":403', 1))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (older_keys, "1 subjects have no key, and no erasure is on record: the keys are older than the log"),
        (keys_from_before_the_erasure, "1 erased subjects have a key"),
        (damaged_keys, "no erasure is on record"),
        (damaged_log, "edited: its hash does not fit its content"),
    ],
)
def test_a_backup_that_could_not_be_restored_is_told_and_why(
    log: Log, backup: Path, damage: Callable[[Log, Path], None], said: str
) -> None:
    damage(log, backup)
    assert any(said in fault for fault in checked(backup).faults), checked(backup).faults


def test_a_backup_without_its_keys_is_refused_by_name(backup: Path, tmp_path: Path) -> None:
    shutil.rmtree(backup / "audit" / "keys")
    with pytest.raises(AuditError, match="are not in"):
        checked(backup)
    with pytest.raises(AuditError, match="There is no audit log in"):
        list(check_backup(AuditPlaces(folder=tmp_path / "none"), Signing(backup / "keys")))
    shutil.rmtree(backup / "keys")
    with pytest.raises(AuditError, match="There is no trusted key in"):
        checked(backup)
