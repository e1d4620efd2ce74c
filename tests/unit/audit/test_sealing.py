"""From the spool to sealed records: joined, fielded, private, and out of the spool again."""

import json
import resource
import time
from pathlib import Path

import pytest

from resources.audit.chain import SegmentLimits
from resources.audit.places import PLATFORM, AuditError
from resources.audit.searching import opened
from resources.audit.segments import segments_in
from resources.audit.spool import CHUNK_BYTES, OPENED
from resources.audit.subject_keys import SubjectKeys
from tests.unit.audit.conftest import Log, MakeLog
from tests.unit.audit.spooling import DIGEST, GatewaySpool, request_event, response_event


def everything_below(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_request_and_its_response_become_one_record_with_who_what_and_how(log: Log) -> None:
    id = log.spool.exchange()
    assert log.collect() == 1
    (record,) = log.records()
    assert record["id"] == id
    assert (record["kind"], record["outcome"], record["status"]) == ("request", "ok", 200)
    assert (record["tenant"], record["key"], record["via"]) == ("team-a", "k3fzabcd2345", "key")
    assert (record["digest"], record["served_digest"]) == (DIGEST, DIGEST)
    assert (record["prompt_tokens"], record["completion_tokens"]) == (11, 7)
    assert (record["latency_ms"], record["first_byte_ms"]) == (40.25, 12.5)
    assert record["sampling"] == {"temperature": 0.7, "max_tokens": 64}
    assert record["started_at"].endswith("Z")
    assert record["ended_at"] >= record["started_at"]
    assert log.faults() == ()


def test_no_name_and_no_address_stands_in_the_clear_once_it_is_sealed(log: Log) -> None:
    log.fill(3)
    content = everything_below(log.home)
    for secret in (b"jan.kowalski@example.com", b"ci of team-a", b"203.0.113.77"):
        assert secret not in content
    names = {record["subject"] for record in log.records()}
    assert len(names) == 1, "the records of one subject carry one pseudonym"


def test_folders_and_files_are_their_owners_alone(log: Log) -> None:
    log.fill(1)
    for path in (log.home / "audit").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_an_aborted_request_and_a_refusal_are_on_the_record(log: Log) -> None:
    id = log.spool.request()
    log.spool.write({"e": "aborted", "id": id, "at": 1763.5, "first_byte_ms": None})
    refusal = {"e": "denied", "id": "refused-1", "at": 1763.5, "tenant": "team-a", "key": None}
    refusal |= {"status": 401, "reason": "unknown_key", "path": "/v1/models", "remote": "198.51.100.9"}
    log.spool.write(refusal | {"requested": None})
    log.spool.write(refusal | {"id": "refused-2", "tenant": None})
    assert log.collect() == 3
    assert [record["outcome"] for record in log.records()] == ["aborted", "denied"]
    (elsewhere,) = log.records(PLATFORM)
    assert (elsewhere["id"], elsewhere["reason"]) == ("refused-2", "unknown_key")
    assert b"198.51.100.9" not in everything_below(log.home)


def test_what_was_sent_before_the_client_left_is_on_the_record_and_how_many_were_refused(log: Log) -> None:
    id = log.spool.request(risk_class="high")
    sent = {"output_sha256": "a" * 64, "output_bytes": 9, "output": "Your invo"}
    log.spool.write({"e": "aborted", "id": id, "at": 1763.5, "first_byte_ms": 7.0, **sent})
    refusal = {"e": "denied", "id": "refused-1", "at": 1763.5, "tenant": "team-a", "status": 401}
    log.spool.write(refusal | {"reason": "no_key", "count": 733})
    log.collect()
    aborted, denied = log.records()
    assert (aborted["outcome"], aborted["output_bytes"]) == ("aborted", 9)
    keys = SubjectKeys(log.places.keys("team-a"))
    keys.begin()
    assert opened(aborted, keys)["personal"]["output"] == "Your invo"
    assert denied["count"] == 733


def test_a_digest_that_was_not_promoted_is_an_error_on_the_record(log: Log) -> None:
    id = log.spool.request()
    log.spool.response(id, reason="digest_mismatch", served_digest="sha256:" + "e" * 64)
    log.collect()
    (record,) = log.records()
    assert (record["outcome"], record["reason"]) == ("error", "digest_mismatch")


def test_a_torn_last_line_waits_for_its_end(log: Log) -> None:
    event = request_event("team-a")
    line = json.dumps(event).encode() + b"\n"
    log.spool.write_bytes(line[:100])
    assert log.collect() == 0
    log.spool.write_bytes(line[100:])
    log.spool.response(event["id"])
    assert log.collect() == 1


def test_a_request_waits_until_its_gateway_is_gone_and_is_then_interrupted(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.audit.spool.QUIET_S", 0.0)
    id = log.spool.request()
    assert log.collect() == 0
    log.spool.close()
    later = GatewaySpool(log.spool.folder, boot=log.spool.boot + 5000)
    answered = later.exchange()
    assert log.collect() == 2
    outcomes = {record["id"]: record["outcome"] for record in log.records()}
    assert outcomes == {id: "interrupted", answered: "ok"}
    assert not log.spool.path.exists(), "the file of the boot that is over has nothing left in it"


def test_a_gateway_that_does_not_run_interrupts_its_requests(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.audit.collecting.LOOK_S", 0.0)
    log.spool.request()
    assert log.collect() == 0
    log.spool.close()
    assert log.collect() == 1
    assert log.records()[0]["outcome"] == "interrupted"
    log.spool = GatewaySpool(log.spool.folder, boot=log.spool.boot + 1, locks=False)
    id = log.spool.request()
    assert log.collect() == 0
    log.gateway_alive = False
    assert log.collect() + log.collect() == 1
    assert (log.records()[1]["id"], log.records()[1]["outcome"]) == (id, "interrupted")


def test_what_was_sealed_is_blanked_in_the_spool_and_finished_files_go(make_log: MakeLog) -> None:
    log = make_log()
    log.spool.file_bytes = 4000
    waiting = log.spool.request(subject="still waiting")
    log.fill(20)
    files = sorted(log.spool.folder.glob("*.jsonl"))
    assert files[0].name.endswith("000001.jsonl"), "it holds a request that is not at its end"
    assert len(files) == 2, files
    assert [line for line in files[0].read_bytes().split(b"\n") if line.strip()] == [
        line for line in files[0].read_bytes().split(b"\n") if waiting.encode() in line
    ]
    log.spool.response(waiting)
    log.collect()
    assert [path.name for path in log.spool.folder.glob("*.jsonl")] == [log.spool.path.name]
    assert log.spool.path.read_bytes().strip() == b""


def test_a_line_that_nobody_can_read_is_told_and_stops_nothing(log: Log) -> None:
    log.spool.write_bytes(b'{"e":"request","id":\n')
    log.spool.write_bytes(b"[" * 100_000 + b"\n")
    log.spool.write({"e": "response", "id": "odd", "at": "yesterday", "status": {}, "ms": []})
    log.spool.exchange()
    log.collect()
    assert len(log.records()) == 1
    assert [record["kind"] for record in log.records(PLATFORM)][:2] == ["unreadable", "unreadable"]
    log.begin()
    assert log.collect() == 0


def test_a_line_longer_than_a_chunk_is_read_whole(log: Log) -> None:
    text = "x" * (CHUNK_BYTES + 1000)
    event = request_event("team-a", risk_class="limited", padding=text)
    log.spool.write(event)
    log.spool.write(response_event(event["id"]))
    assert log.collect() == 1


def test_a_tenant_that_cannot_be_one_has_no_folder(log: Log) -> None:
    log.fill(1, tenant="../../outside")
    assert [record["kind"] for record in log.records(PLATFORM)] == ["request"]
    assert log.places.tenants() == [PLATFORM]
    with pytest.raises(AuditError, match="cannot be a tenant"):
        log.places.log("../outside")


def test_what_is_no_tenant_s_in_the_folder_of_logs_and_keys_stops_nothing(log: Log) -> None:
    log.fill(1)
    for folder in (log.home / "audit" / "log", log.home / "audit" / "keys"):
        (folder / "lost+found").mkdir()
        (folder / ".DS_Store").write_bytes(b"")
    log.begin()
    log.fill(1)
    log.sealer.close_due(time.time() + 7200)
    assert log.places.tenants() == log.places.tenants_with_keys() == ["team-a"]
    assert log.faults() == ()


def test_starting_anew_at_any_point_seals_nothing_twice(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sealed but not yet taken out of the spool, as after a kill between the two."""
    ids = [log.spool.exchange() for _ in range(50)]
    monkeypatch.setattr("resources.audit.spool.SpoolFile.blank", lambda file, places: None)
    log.collect()
    monkeypatch.undo()
    (log.home / "audit" / "index.db").unlink()
    log.begin()
    assert log.collect() == 0
    assert [record["id"] for record in log.records()] == ids
    assert log.spool.path.read_bytes().strip() == b""


def test_a_disk_that_takes_nothing_loses_nothing(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    log.fill(1)
    folder = log.places.log("team-a")
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.write_bytes(b"")  # no folder can be made there: as failing as a full disk
    ids = [log.spool.exchange() for _ in range(3)]
    other = log.spool.exchange("team-b")
    log.collector.step()
    assert log.collector.sealed == 2, "the other tenant's"
    assert "could not be written" in caplog.text
    assert log.collector.behind == 3
    folder.unlink()
    aside.rename(folder)
    assert log.collect() == 3
    assert [record["id"] for record in log.records()][1:] == ids
    assert [record["id"] for record in log.records("team-b")] == [other]


def test_a_chain_that_cannot_be_read_holds_up_no_other(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    log.fill(1)
    log.fill(1, "team-b")
    head = log.places.log("team-a") / "head.json"
    head.unlink()
    head.mkdir()
    log.begin()
    assert "The audit log of team-a could not be written" in caplog.text
    id, other = log.spool.exchange(), log.spool.exchange("team-b")
    log.collector.step()
    assert log.records("team-b")[-1]["id"] == other
    with pytest.raises((AuditError, OSError)):
        log.sealer.close_due(time.time() + 7200)
    assert (log.places.log("team-b") / "000000000001.seal.json").exists()
    head.rmdir()
    log.collect()
    assert log.records()[-1]["id"] == id


def test_full_and_old_segments_are_closed_and_signed(make_log: MakeLog) -> None:
    log = make_log(limits=SegmentLimits(records=5))
    for _ in range(4):
        log.fill(3)
    names = sorted(path.name for path in log.places.log("team-a").iterdir())
    assert names == ["000000000001.jsonl", "000000000001.seal.json", "000000000007.jsonl", "head.json"]
    log.sealer.close_due(time.time() + 7200)
    assert (log.places.log("team-a") / "000000000007.seal.json").exists()
    log.fill(1)
    assert log.faults() == ()
    assert log.records()[-1]["seq"] == 13


def test_two_writers_of_one_chain_take_turns(log: Log, make_log: MakeLog) -> None:
    """The command line writes into the chain while the collector holds it open."""
    log.fill(2)
    other = make_log(log.home)
    other.sealer.record_event("team-a", "access", by="auditor", command="search")
    log.fill(2)
    other.sealer.record_event("team-a", "access", by="auditor", command="search")
    assert [record["seq"] for record in log.records()] == [1, 2, 3, 4, 5, 6]
    assert log.faults() == ()


def test_a_request_that_is_ended_twice_has_one_record(log: Log) -> None:
    id = log.spool.exchange()
    log.spool.write({"e": "aborted", "id": id, "at": 1763.5, "first_byte_ms": None})
    log.collect()
    log.spool.response(id)
    log.collect()
    assert [record["outcome"] for record in log.records()] == ["ok"]
    assert log.places.tenants() == ["team-a"]
    assert log.spool.path.read_bytes().strip() == b""


def test_a_collector_that_stood_still_for_long_takes_many_files_in_their_order(log: Log) -> None:
    log.spool.file_bytes = 1
    first = log.spool.request(subject="waits through all of them")
    ids = [log.spool.exchange() for _ in range(3 * OPENED)]
    log.spool.response(first)
    assert len(list(log.spool.folder.iterdir())) > 6 * OPENED
    log.collect()
    assert [record["id"] for record in log.records()] == [*ids, first]
    assert len(list(log.spool.folder.glob("*.jsonl"))) == 1


@pytest.mark.parametrize("locks", [True, False])
def test_a_gateway_whose_number_went_back_is_read_as_well(
    log: Log, monkeypatch: pytest.MonkeyPatch, *, locks: bool
) -> None:
    log.fill(1)
    log.spool.close()
    earlier = GatewaySpool(log.spool.folder, boot=log.spool.boot - 5000, locks=locks)
    id = earlier.exchange()
    log.collect()
    assert log.records()[-1]["id"] == id
    assert earlier.path.exists(), "somebody may still write there"
    monkeypatch.setattr("resources.audit.spool.QUIET_S", 0.0)
    log.collect()
    assert earlier.path.exists() == locks
    if locks:
        id = earlier.request(risk_class="high", input="a long question")
        log.collect()
        earlier.response(id, output="a late answer")
        log.collect()
        assert (log.records()[-1]["id"], log.records()[-1]["outcome"]) == (id, "ok")
        earlier.close()
        log.collect()
        assert not earlier.path.exists()
        assert not (log.spool.folder / f"{earlier.boot}.lock").exists()


def test_a_write_that_the_disk_takes_in_part_is_taken_back(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel ends the write within a record, as on a full disk."""
    log.fill(300)
    segment = log.places.log("team-a") / "000000000001.jsonl"
    ids = [log.spool.exchange() for _ in range(5)]
    size, before = segment.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 2000, before[1]))
    try:
        assert log.collect() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "could not be written" in caplog.text
    assert segment.stat().st_size == size
    assert log.faults() == ()
    assert log.collect() == 5
    assert [record["id"] for record in log.records()][300:] == ids
    assert log.faults() == ()


def test_an_index_that_lags_behind_another_writer_catches_up_with_the_next_record(
    log: Log, make_log: MakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.fill(1)
    other = make_log(log.home)
    with monkeypatch.context() as slow:
        slow.setattr(other.sealer.index, "add", lambda tenant, sealed: None)
        other.sealer.record_event("team-a", "access", id="event-1", by="auditor")
    assert log.sealer.index.find("event-1") is None
    (id,) = log.fill(1)
    assert log.sealer.index.find("event-1")
    assert log.sealer.index.find(id)


def test_an_index_of_lines_that_were_taken_back_is_made_anew(log: Log) -> None:
    ids = log.fill(3)
    (segment,) = segments_in(log.places.log("team-a"))
    whole = segment.path.read_bytes()
    segment.path.write_bytes(whole + b'{"id":"never sealed"}\n')
    log.sealer.index.catch_up()
    segment.path.write_bytes(whole)
    log.sealer.index.catch_up()
    assert all(log.sealer.index.find(id) for id in ids)
    (more,) = log.fill(1)
    assert log.sealer.index.find(more)


def test_a_damaged_index_is_made_anew(log: Log) -> None:
    (id,) = log.fill(1)
    log.close()
    log.places.index.write_bytes(b"no database" * 1000)
    log.begin()
    assert log.sealer.index.find(id)
