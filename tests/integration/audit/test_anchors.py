"""Heads in a store: an older log that is put back, and one that is gone, are missed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from resources.audit.anchors import HEADS, Anchors
from resources.audit.chain import SegmentLimits
from resources.audit.publishing import Publisher
from resources.audit.statements import Signing
from resources.audit.verifying import known_tenants, verify_tenant
from resources.object_stores.disk import DiskStore
from resources.object_stores.objects import ObjectStore
from resources.object_stores.opening import open_object_store
from tests.servers.s3 import CREDENTIALS, s3_server
from tests.unit.audit.conftest import Log, MakeLog


def publish(log: Log, store: ObjectStore) -> None:
    Publisher(log.places, store, log.sealer.signing).publish()


def problems(log: Log, store: ObjectStore, tenant: str = "team-a") -> list[str]:
    verdict = verify_tenant(log.places, tenant, log.sealer.signing, Anchors(objects=store))
    return [fault.problem for fault in verdict.faults]


def heads(store: ObjectStore, tenant: str = "team-a") -> dict[str, bytes]:
    return {each.key: store.read(each.key) for each in store.list(f"{HEADS}/{tenant}/")}


def rolled_back(log: Log, change: Callable[[], object]) -> None:
    """`change` happens, and then the log lies there as it was before, with its head."""
    folder, aside = log.places.log("team-a"), log.home / "aside"
    shutil.copytree(folder, aside)
    change()
    shutil.rmtree(folder)
    aside.rename(folder)


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store")


def test_a_head_in_the_store_is_never_written_over_by_an_older_log(log: Log, store: DiskStore) -> None:
    """It is exchanged while the collector runs, and one request comes."""
    publisher = Publisher(log.places, store, log.sealer.signing)
    log.fill(2)
    publisher.publish()
    rolled_back(log, lambda: (log.fill(3), publisher.publish()))
    before = heads(store)
    assert len(before) == 2
    log.fill(1)
    publisher.publish()
    assert before.items() < heads(store).items()
    assert any("in the artifact store" in problem for problem in problems(log, store))


def test_a_log_that_was_put_back_goes_on_behind_what_the_store_knows_and_the_hole_stays(
    log: Log, store: DiskStore, caplog: pytest.LogCaptureFixture
) -> None:
    log.fill(2)
    rolled_back(log, lambda: (log.fill(3), publish(log, store)))
    assert log.faults() == (), "by itself it is as it was"
    log.begin()
    publish(log, store)
    assert "ends at 2, but the artifact store has its head of record 5" in caplog.text
    (id,) = log.fill(1)
    assert (log.records()[-1]["seq"], log.records()[-1]["id"]) == (6, id)
    publish(log, store)
    assert any("records 3 to 5 before it are missing" in fault.problem for fault in log.faults())
    shutil.rmtree(store.root)
    assert log.faults(), "also without the store"


def test_a_collector_that_runs_takes_the_head_that_the_store_has(log: Log, store: DiskStore) -> None:
    """It had sealed already when the store answered."""
    log.fill(2)
    rolled_back(log, lambda: (log.fill(8), publish(log, store)))
    log.begin()
    log.fill(3)
    publish(log, store)
    log.fill(2)
    assert [record["seq"] for record in log.records()] == [1, 2, 3, 4, 5, 11, 12]
    publish(log, store)
    assert problems(log, store)


def test_a_second_history_that_is_longer_than_the_first_is_found(
    log: Log, store: DiskStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Each record of it is sealed and signed: the newest head alone would fit."""
    log.fill(2)
    rolled_back(log, lambda: (log.fill(3), publish(log, store)))
    log.begin()
    log.fill(10)
    publish(log, store)
    assert "has another record 5 than the head in the artifact store says" in caplog.text
    (problem,) = problems(log, store)
    assert problem.startswith("exchanged: the head in the artifact store (audit/_heads/team-a/")


def test_a_chain_that_is_gone_as_a_whole_is_named(log: Log, store: DiskStore) -> None:
    log.fill(2)
    log.fill(3, "team-b")
    publish(log, store)
    for folder in (log.places.log("team-b"), log.places.keys("team-b")):
        shutil.rmtree(folder)
    anchors = Anchors(objects=store)
    assert known_tenants(log.places, anchors) == ["team-a", "team-b"]
    assert problems(log, store) == []
    assert problems(log, store, "team-b") == [
        "gone: there is no log of team-b, but the artifact store has its heads up to record 3"
    ]
    log.begin()
    publish(log, store)
    log.fill(1, "team-b")
    assert log.records("team-b")[0]["seq"] == 4
    assert any("records 1 to 3 before it are missing" in fault.problem for fault in log.faults("team-b"))


def test_without_a_store_a_chain_is_missed_by_the_keys_of_its_subjects(log: Log) -> None:
    log.fill(2)
    shutil.rmtree(log.places.log("team-a"))
    assert known_tenants(log.places, None) == ["team-a"]
    (fault,) = log.faults()
    assert fault.problem == "gone: there is no log of team-a, but the keys of its subjects are there"


def test_what_is_no_head_in_the_store_is_named_and_stops_nothing(log: Log, store: DiskStore) -> None:
    log.fill(2)
    publish(log, store)
    foreign = Signing(log.home / "other-keys").signed(
        {"kind": "head", "tenant": "team-a", "seq": 999, "hash": "a" * 64, "segment": 1}
    )
    for key, content in (
        (f"000000000999-{'a' * 64}", foreign),
        (f"000000000998-{'b' * 64}", b"nothing"),
    ):
        assert store.create(f"{HEADS}/team-a/000000000001/{key}.json", content)
    log.begin()
    log.fill(1)
    publish(log, store)
    assert [record["seq"] for record in log.records()] == [1, 2, 3]
    found = problems(log, store)
    assert len(found) == 2
    assert all("is no head of this log" in problem for problem in found)


def test_a_segment_in_the_store_is_not_written_over_by_another_one(
    make_log: MakeLog, store: DiskStore
) -> None:
    log = make_log(limits=SegmentLimits(records=2))
    log.fill(2)
    rolled_back(log, lambda: (log.fill(2), log.fill(2), publish(log, store)))
    seals = {each.key: store.read(each.key) for each in store.list("audit/team-a/")}
    assert seals
    shutil.rmtree(log.places.positions)
    shutil.rmtree(store.root / HEADS)
    log.begin()
    log.fill(3)
    log.fill(3)
    with pytest.raises(Exception, match="another segment 000000000003 of team-a than this log"):
        publish(log, store)
    assert seals.items() <= {each.key: store.read(each.key) for each in store.list("audit/team-a/")}.items()


@pytest.mark.long
def test_a_bucket_that_locks_its_objects_takes_all_and_keeps_every_head(
    make_log: MakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 Object Lock, with a retention that the bucket gives to each object."""
    log = make_log(limits=SegmentLimits(records=2))
    with s3_server(bucket="other") as address:
        for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": address}).items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
        rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
        client.put_object_lock_configuration(
            Bucket="locked", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
        )
        store = open_object_store("s3://locked/llm-assets")
        for _ in range(3):
            log.fill(2)
            publish(log, store)
        assert problems(log, store) == []
        versions = client.list_object_versions(Bucket="locked", Prefix="llm-assets/audit/")["Versions"]
        assert len(versions) == len({version["Key"] for version in versions}), "nothing was written twice"
        assert len(heads(store)) == 3
        client.close()
    assert json.loads(next(iter([*log.places.positions.rglob("team-a.json")])).read_text())["published"] == 3
