"""Whatever is done to a sealed log is found, and its place is named."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.audit.chain import SegmentLimits
from resources.audit.segments import GENESIS, HEAD, line_of, record_in, segments_in
from resources.audit.statements import Signing
from resources.audit.verifying import verify_tenant
from resources.signing.keys import SIGNING_KEY
from tests.unit.audit.conftest import Log, MakeLog

RECORDS, IN_SEGMENT = 17, 5


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """Seventeen records in four segments, the last of them open."""
    log = Log(tmp_path_factory.mktemp("sealed"), limits=SegmentLimits(records=IN_SEGMENT))
    for _ in range(RECORDS):
        log.fill(1)
    assert len(segments_in(log.places.log("team-a"))) == 4
    log.close()
    return log


def damaged(sealed: Log, damage: Callable[[list[Path]], None]) -> list[str]:
    """What `verify` says of a copy to which something was done."""
    home = sealed.home.with_name("copy")
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(sealed.home, home)
    copy = type(sealed.places)(folder=home / "audit")
    damage([segment.path for segment in segments_in(copy.log("team-a"))])
    verdict = verify_tenant(copy, "team-a", Signing(home / "keys"))
    return [f"{fault.segment}:{fault.line}: {fault.problem}" for fault in verdict.faults]


def test_an_untouched_log_has_no_fault(sealed: Log) -> None:
    verdict = verify_tenant(sealed.places, "team-a", sealed.sealer.signing)
    assert (verdict.records, verdict.segments, verdict.faults) == (RECORDS, 4, ())


@given(st.integers(0, 10**9), st.integers(1, 255))
def test_any_changed_byte_is_found(sealed: Log, at: int, difference: int) -> None:
    def change(segments: list[Path]) -> None:
        path = segments[at % len(segments)]
        content = bytearray(path.read_bytes())
        content[(at // 7) % len(content)] ^= difference
        path.write_bytes(content)

    assert damaged(sealed, change)


@given(st.integers(0, RECORDS - 1))
def test_any_dropped_record_is_found(sealed: Log, which: int) -> None:
    def drop(segments: list[Path]) -> None:
        path = segments[which // IN_SEGMENT]
        lines = path.read_bytes().splitlines(keepends=True)
        del lines[which % IN_SEGMENT]
        path.write_bytes(b"".join(lines))

    found = " ".join(damaged(sealed, drop))
    assert "dropped" in found or "missing" in found or "truncated" in found or "not what was closed" in found


@given(st.integers(0, 2), st.permutations(range(IN_SEGMENT)))
def test_any_other_order_is_found(sealed: Log, which: int, order: list[int]) -> None:
    def reorder(segments: list[Path]) -> None:
        lines = segments[which].read_bytes().splitlines(keepends=True)
        segments[which].write_bytes(b"".join(lines[place] for place in order))

    assert bool(damaged(sealed, reorder)) == (order != sorted(order))


def test_an_edited_record_is_named_with_segment_and_line(sealed: Log) -> None:
    def edit(segments: list[Path]) -> None:
        lines = segments[1].read_bytes().splitlines(keepends=True)
        lines[2] = lines[2].replace(b'"status":200', b'"status":403')
        segments[1].write_bytes(b"".join(lines))

    found = damaged(sealed, edit)
    assert found[0] == "000000000006.jsonl:3: edited: its hash does not fit its content"


def test_an_edit_with_all_hashes_made_anew_breaks_the_signatures(sealed: Log) -> None:
    """By somebody who knows the format but has not the signing key."""

    def forge(segments: list[Path]) -> None:
        previous = GENESIS
        for path in segments:
            lines = []
            for line in path.read_bytes().splitlines():
                record = {**record_in(line), "previous": previous, "outcome": "error"}
                del record["hash"]
                new, previous = line_of(record)
                lines.append(new)
            path.write_bytes(b"".join(lines))

    found = damaged(sealed, forge)
    assert "000000000001.jsonl:0: it is not what was closed and signed: hash, sha256 differ" in found
    assert any("the head was signed over another record 17" in fault for fault in found)


def test_a_log_signed_anew_with_another_key_is_refused(sealed: Log) -> None:
    def resign(segments: list[Path]) -> None:
        folder, home = segments[0].parent, segments[0].parents[3]
        other = Signing(home / "other-keys")
        for path in [*folder.glob("*.seal.json"), folder / HEAD]:
            path.write_bytes(other.signed(json.loads(json.loads(path.read_bytes())["statement"])))

    found = damaged(sealed, resign)
    assert len(found) == 4
    assert all("bad signature" in fault and "not trusted" in fault for fault in found)


@pytest.mark.parametrize("lines", [1, 2])
def test_a_truncated_open_tail_is_found_by_the_signed_head(sealed: Log, lines: int) -> None:
    def truncate(segments: list[Path]) -> None:
        kept = segments[-1].read_bytes().splitlines(keepends=True)[:-lines]
        segments[-1].write_bytes(b"".join(kept))

    (found,) = damaged(sealed, truncate)
    assert found.startswith("head.json:0: truncated: the head covers records up to 17")


@pytest.mark.parametrize("which", [0, 1, 3])
def test_a_missing_segment_is_found(sealed: Log, which: int) -> None:
    assert damaged(sealed, lambda segments: segments[which].unlink())


def test_a_segment_that_is_removed_with_its_seal_is_found(sealed: Log) -> None:
    def remove(segments: list[Path]) -> None:
        segments[1].unlink()
        segments[1].with_suffix(".seal.json").unlink()

    assert "000000000011.jsonl:0: records 6 to 10 before it are missing" in damaged(sealed, remove)


@pytest.mark.parametrize("name", ["000000000006.seal.json", HEAD])
def test_a_removed_signature_is_found(sealed: Log, name: str) -> None:
    (found,) = damaged(sealed, lambda segments: (segments[0].parent / name).unlink())
    assert "missing" in found


def test_a_record_of_another_tenant_is_found(sealed: Log) -> None:
    def swap(segments: list[Path]) -> None:
        segments[0].parent.rename(segments[0].parent.with_name("team-b"))

    home = sealed.home.with_name("copy")
    damaged(sealed, swap)
    places = type(sealed.places)(folder=home / "audit")
    assert any("record of team-a" in fault.problem for fault in _faults(places, home))


def _faults(places: object, home: Path) -> tuple:
    return verify_tenant(places, "team-b", Signing(home / "keys")).faults  # type: ignore[arg-type]


def test_a_collector_that_finds_its_tail_cut_off_goes_on_and_the_hole_stays_visible(
    make_log: MakeLog,
) -> None:
    log = make_log()
    log.fill(3)
    (segment,) = segments_in(log.places.log("team-a"))
    lines = segment.path.read_bytes().splitlines(keepends=True)
    segment.path.write_bytes(b"".join(lines[:-1]))
    log.begin()
    log.fill(2)
    problems = [fault.problem for fault in log.faults()]
    assert any("records 3 to 3 before it are missing" in problem for problem in problems), problems


def test_a_batch_whose_head_a_kill_kept_back_is_closed_with_a_head_and_nobody_is_accused(
    make_log: MakeLog,
) -> None:
    log = make_log()
    log.fill(2)
    head = (log.places.log("team-a") / HEAD).read_bytes()
    log.fill(2)
    (log.places.log("team-a") / HEAD).write_bytes(head)
    assert log.faults() == ()
    log.begin()
    log.sealer.close_due(time.time() + 7200)
    assert log.faults() == ()
    log.begin()
    log.fill(1)
    assert [record["seq"] for record in log.records()] == [1, 2, 3, 4, 5]
    assert log.faults() == ()


def test_a_new_signing_key_leaves_what_the_old_one_signed_verified(make_log: MakeLog) -> None:
    log = make_log(limits=SegmentLimits(records=2))
    log.fill(3)
    (log.home / "keys" / SIGNING_KEY).unlink()
    log.fill(3)
    log.fill(3)
    assert log.faults() == ()


def test_a_log_that_is_being_written_is_never_accused(make_log: MakeLog) -> None:
    """Lines are half there, segments are closed and begun while they are read."""
    log = make_log(limits=SegmentLimits(records=30))
    log.fill(1)
    writer = threading.Thread(target=lambda: [log.fill(10) for _ in range(40)])
    writer.start()
    verdicts = []
    while writer.is_alive():
        verdicts.append(verify_tenant(log.places, "team-a", Signing(log.home / "keys")))
    writer.join()
    assert [verdict.faults for verdict in verdicts] == [()] * len(verdicts)
    assert len({verdict.records for verdict in verdicts}) > 1, "it was read while it grew"
    assert len(segments_in(log.places.log("team-a"))) > 10
