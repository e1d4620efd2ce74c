"""What is due is deleted with a proof, here and in the store; a store that is down delays only itself."""

import gzip
import time
from pathlib import Path

import pytest

from resources.audit.chain import SegmentLimits
from resources.audit.publishing import Publisher
from resources.audit.retention import DAY_S, Keeping, delete_due
from resources.audit.run_time import Moment
from resources.audit.segments import HEAD, segments_in
from resources.audit.statements import Signing
from resources.audit.verifying import verify_tenant
from resources.object_stores.disk import DiskStore
from resources.object_stores.objects import ObjectStoreError
from tests.unit.audit.conftest import Log, MakeLog


@pytest.fixture
def log(make_log: MakeLog) -> Log:
    """Nine records in two closed segments and an open one."""
    log = make_log(limits=SegmentLimits(records=4))
    for risk_class in ("limited", "high", "limited"):
        log.fill(4 if risk_class != "limited" else 2, risk_class=risk_class)
        log.fill(2, risk_class=risk_class)
    return log


def names(log: Log) -> list[str]:
    return sorted(path.name for path in log.places.log("team-a").iterdir())


def after(days: float) -> Moment:
    """By both clocks; the log began with the test."""
    return Moment(at=time.time() + days * DAY_S, ran_s=days * DAY_S)


def test_nothing_is_deleted_before_it_is_due(log: Log) -> None:
    before = names(log)
    assert delete_due(log.sealer, "team-a", Keeping(days=183), after(182)) == 0
    assert names(log) == before


@pytest.mark.parametrize(("passed_days", "ran_days"), [(200, 0), (200, 182), (0, 400), (-400, 400)])
def test_nothing_is_deleted_that_is_due_by_one_clock_alone(
    log: Log, passed_days: float, ran_days: float
) -> None:
    before = names(log)
    moment = Moment(at=time.time() + passed_days * DAY_S, ran_s=ran_days * DAY_S)
    assert delete_due(log.sealer, "team-a", Keeping(days=183), moment) == 0
    assert names(log) == before


def test_what_is_due_leaves_a_proof_and_the_chain_verifies(log: Log) -> None:
    closed = len([name for name in names(log) if name.endswith(".seal.json")])
    assert closed >= 2
    assert delete_due(log.sealer, "team-a", Keeping(days=183), after(184)) == closed
    assert log.faults() == ()
    assert len([name for name in names(log) if name.endswith(".deleted.json")]) == closed
    events = [record for record in log.records() if record.get("event") == "retention"]
    assert events[0]["first"] == 1
    log.fill(5)
    assert log.faults() == ()


def test_records_of_a_risk_class_with_a_longer_rule_stay_and_all_behind_them(log: Log) -> None:
    keeping = Keeping(days=183, days_by_risk_class={"high": 3650})
    assert delete_due(log.sealer, "team-a", keeping, after(184)) == 1
    assert "high" in {record.get("risk_class") for record in log.records()}
    assert delete_due(log.sealer, "team-a", keeping, after(3651)) >= 1
    assert log.faults() == ()


def test_a_legal_hold_keeps_everything(log: Log) -> None:
    assert delete_due(log.sealer, "team-a", Keeping(days=183, legal_hold=True), after(10_000)) == 0


def test_a_deletion_that_was_killed_is_finished(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(
            "resources.audit.retention._unlink", lambda segment: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            delete_due(log.sealer, "team-a", Keeping(days=183), after(184))
    assert log.faults() == ()
    delete_due(log.sealer, "team-a", Keeping(days=183), after(1))
    assert "000000000001.jsonl" not in names(log)
    assert log.faults() == ()


def test_an_altered_proof_and_a_removed_one_are_found(log: Log) -> None:
    delete_due(log.sealer, "team-a", Keeping(days=183), after(184))
    proof = log.places.log("team-a") / "000000000001.deleted.json"
    content = proof.read_bytes()
    proof.write_bytes(content.replace(b"retention_days", b"retention_dayz"))
    assert any("bad signature" in fault.problem for fault in log.faults())
    proof.unlink()
    assert log.faults() != ()


def test_the_index_forgets_what_was_deleted(log: Log) -> None:
    id = log.records()[0]["id"]
    assert log.sealer.index.find(id)
    delete_due(log.sealer, "team-a", Keeping(days=183), after(184))
    assert log.sealer.index.find(id) is None


def test_closed_segments_and_the_head_come_into_the_store_and_go_when_they_are_due(
    log: Log, tmp_path: Path
) -> None:
    store = DiskStore(tmp_path / "store")
    publisher = Publisher(log.places, store, log.sealer.signing)
    assert publisher.publish() > 0
    assert publisher.publish() == 0
    packed = store.read("audit/team-a/000000000001.jsonl.gz")
    assert gzip.decompress(packed) == (log.places.log("team-a") / "000000000001.jsonl").read_bytes()
    (anchor,) = publisher.anchors.of("team-a")
    assert anchor.proven(log.sealer.signing) == (log.places.log("team-a") / HEAD).read_bytes()
    delete_due(log.sealer, "team-a", Keeping(days=183), after(184))
    Publisher(log.places, store, log.sealer.signing).publish()
    kept = [stored.key for stored in store.list("audit/team-a/")]
    assert "audit/team-a/000000000001.deleted.json" in kept
    assert "audit/team-a/000000000001.jsonl.gz" not in kept
    assert verify_tenant(log.places, "team-a", log.sealer.signing, publisher.anchors).faults == ()


def test_a_store_that_is_down_is_caught_up_with_when_it_is_back(log: Log, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder can be here")
    publisher = Publisher(log.places, DiskStore(tmp_path / "store"), log.sealer.signing)
    with pytest.raises(ObjectStoreError):
        publisher.publish()
    log.fill(6)  # sealing goes on
    assert log.faults() == ()
    (tmp_path / "store").unlink()
    publisher.publish()
    closed = [segment.name for segment in segments_in(log.places.log("team-a")) if segment.seal.exists()]
    stored = [each.key for each in DiskStore(tmp_path / "store").list("audit/team-a/")]
    assert {f"audit/team-a/{name}.jsonl.gz" for name in closed} <= set(stored)


def test_a_tail_that_is_cut_off_together_with_its_head_is_found_by_the_stores_head(
    log: Log, tmp_path: Path
) -> None:
    folder = log.places.log("team-a")
    head, segment = (folder / HEAD).read_bytes(), segments_in(folder)[-1]
    size = segment.path.stat().st_size
    log.fill(1)
    publisher = Publisher(log.places, DiskStore(tmp_path / "store"), log.sealer.signing)
    publisher.publish()
    (folder / HEAD).write_bytes(head)
    with segment.path.open("r+b") as stream:
        stream.truncate(size)
    signing = Signing(log.home / "keys")
    assert verify_tenant(log.places, "team-a", signing).faults == ()
    (fault,) = verify_tenant(log.places, "team-a", signing, publisher.anchors).faults
    assert fault.problem.startswith("truncated: the head in the artifact store (audit/_heads/team-a/")
