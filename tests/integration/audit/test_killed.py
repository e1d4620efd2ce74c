"""The collector as a real process: killed at any moment, started twice, ended."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from llm_assets.gateway.collector import OTHER_S
from resources.audit.collecting import LOOK_S
from resources.audit.places import PLATFORM, AuditPlaces
from resources.audit.run_time import Clocks, RunTime
from resources.audit.segments import lines_in, record_in, segments_in
from resources.audit.statements import Signing
from resources.audit.subject_keys import SubjectKeys
from resources.audit.verifying import verify_tenant
from tests.conftest import ROOT
from tests.integration.audit.conftest import STARTED
from tests.integration.audit.dying import DIED
from tests.unit.audit import spooling
from tests.unit.audit.spooling import GatewaySpool

RECORDS, TENANTS, KILLS = 2_500, 3, 6
READY_S = 120  # the collector loads its recognizers first, on a machine that tests keep busy
LEAST_DEATHS = 15
PACE_S = 0.001  # the writer is at work while the collector is killed


def collector(home: Path, **settings: str) -> subprocess.Popen[bytes]:
    """With its log in `home`."""
    environment = os.environ | {"LLM_ASSETS_ROOT": str(home), "LLM_ASSETS_HOME": str(home)} | settings
    (home / "catalog").mkdir(exist_ok=True)
    with (home / "collector.log").open("ab") as log:
        command = [sys.executable, "-m", "llm_assets.gateway.collector"]
        STARTED.append(subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log))
    return STARTED[-1]


def sealed_ids(home: Path, tenant: str) -> list[str]:
    folder = AuditPlaces(folder=home / "audit").log(tenant)
    return [record_in(line)["id"] for segment in segments_in(folder) for line in lines_in(segment.path)]


def test_a_collector_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    written_ids = tmp_path / "written.txt"
    arguments: list[str | Path] = [tmp_path / "gateway" / "spool", str(RECORDS), str(TENANTS), str(PACE_S)]
    with written_ids.open("wb") as stream:
        writer = subprocess.Popen([sys.executable, spooling.__file__, *arguments], stdout=stream)
    chance = random.Random(20261122)
    for _ in range(KILLS):
        process = collector(tmp_path)
        time.sleep(chance.uniform(0.3, 1.2))
        process.kill()
        process.wait()
    assert writer.wait(timeout=READY_S) == 0
    written = written_ids.read_text().split()
    assert len(written) == RECORDS
    last = collector(tmp_path)
    places = AuditPlaces(folder=tmp_path / "audit")
    deadline = time.monotonic() + READY_S
    while sum(len(sealed_ids(tmp_path, tenant)) for tenant in places.tenants()) < RECORDS:
        assert time.monotonic() < deadline, (tmp_path / "collector.log").read_text()
        time.sleep(0.2)
    last.terminate()
    assert last.wait(timeout=30) == 0
    sealed = [id for tenant in places.tenants() for id in sealed_ids(tmp_path, tenant)]
    assert len(sealed) == len(set(sealed))
    assert set(sealed) == set(written)
    signing = Signing(tmp_path / "keys")
    assert [verify_tenant(places, tenant, signing).faults for tenant in places.tenants()] == [()] * TENANTS


def test_what_is_there_when_it_is_ended_is_sealed_first_and_a_second_one_waits(tmp_path: Path) -> None:
    """It begins before there is any folder of the gateway."""
    first = collector(tmp_path)
    lock = tmp_path / "audit" / "collector.lock"
    deadline = time.monotonic() + READY_S
    while not lock.exists():
        assert time.monotonic() < deadline, (tmp_path / "collector.log").read_text()
        time.sleep(0.05)
    second = collector(tmp_path)
    spool = GatewaySpool(tmp_path / "gateway" / "spool")
    ids = [spool.exchange() for _ in range(500)]
    first.terminate()
    assert first.wait(timeout=30) == 0
    assert sealed_ids(tmp_path, "team-a") == ids
    more = [spool.exchange() for _ in range(10)]
    deadline = time.monotonic() + OTHER_S
    while len(sealed_ids(tmp_path, "team-a")) < len(ids + more):
        assert time.monotonic() < deadline, (tmp_path / "collector.log").read_text()
        time.sleep(0.05)
    assert sealed_ids(tmp_path, "team-a") == ids + more
    second.send_signal(signal.SIGINT)
    assert second.wait(timeout=30) == 0


def test_a_record_is_sealed_while_the_collector_runs(tmp_path: Path) -> None:
    """How soon is printed, not asserted: it says how busy the machine is."""
    process = collector(tmp_path)
    spool = GatewaySpool(tmp_path / "gateway" / "spool")
    spool.exchange()
    deadline = time.monotonic() + READY_S
    while not (tmp_path / "audit" / "log" / "team-a" / "head.json").exists():
        assert time.monotonic() < deadline, (tmp_path / "collector.log").read_text()
        time.sleep(0.05)
    started, id = time.monotonic(), spool.exchange()
    while id not in sealed_ids(tmp_path, "team-a"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    print(f"sealed after {time.monotonic() - started:.3f} s")
    process.terminate()
    assert process.wait(timeout=30) == 0


def test_beside_sealing_it_records_keys_publishes_heads_and_ships_to_stdout(tmp_path: Path) -> None:
    GatewaySpool(tmp_path / "gateway" / "spool").exchange()
    made = {"event": "created", "id": "k3fz", "tenant": "team-a", "created": 1763.5, "by": "root"}
    (tmp_path / "gateway" / "keys.jsonl").write_text(json.dumps(made) + "\n")
    places, signing, clocks = AuditPlaces(folder=tmp_path / "audit"), Signing(tmp_path / "keys"), Clocks()
    an_hour_ago = Clocks(now=lambda: clocks.now() - 3600)
    RunTime(places=places, signing=signing, clocks=an_hour_ago).tick()
    process = collector(tmp_path, LLM_ASSETS_AUDIT_STDOUT="google")
    heads, log = tmp_path / "store" / "audit" / "_heads" / "team-a", tmp_path / "collector.log"
    deadline = time.monotonic() + READY_S
    while not heads.exists() or log.read_text().count("/insertId") < 2:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    process.terminate()
    assert process.wait(timeout=READY_S) == 0
    records = [record_in(line) for each in segments_in(places.log("team-a")) for line in lines_in(each.path)]
    assert sorted(record["kind"] for record in records) == ["event", "request"]
    (step,) = [record_in(line) for each in segments_in(places.log(PLATFORM)) for line in lines_in(each.path)]
    assert (step["event"], round(step["seconds"])) == ("clock_step", 3600)
    assert "The machine's clock was set by +3600 s" in log.read_text()


def test_a_collector_that_dies_within_any_of_its_writes_is_finished_by_the_next_one(tmp_path: Path) -> None:
    """Each has new exchanges to seal and those that the one before it left, half of them perhaps sealed."""
    spool, ids = GatewaySpool(tmp_path / "gateway" / "spool", file_bytes=2500), []
    code, count = DIED, 0
    while code == DIED:
        count += 1
        ids += [spool.exchange(tenant, subject=f"user-{count}") for tenant in ("team-0", "team-1", "team-0")]
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.audit.dying", tmp_path, str(count)],
            cwd=ROOT,
            check=False,
        )
        code = done.returncode
    assert code == 0
    assert count > LEAST_DEATHS, "it wrote less than this test is about"
    sealed = sealed_ids(tmp_path, "team-0") + sealed_ids(tmp_path, "team-1")
    assert sorted(sealed) == sorted(ids)
    places, signing = AuditPlaces(folder=tmp_path / "audit"), Signing(tmp_path / "keys")
    assert [verify_tenant(places, tenant, signing).faults for tenant in places.tenants()] == [(), ()]
    keys = SubjectKeys(places.keys("team-0"))
    keys.begin()
    assert keys.find("user-1"), "its key outlived every death"


def test_a_request_of_a_gateway_that_is_gone_is_interrupted_also_below_a_long_path(tmp_path: Path) -> None:
    """Its lock was removed. The address of a Unix socket has 107 bytes at most."""
    home = tmp_path / ("a-folder-with-a-long-name-" * 4)
    home.mkdir()
    spool = GatewaySpool(home / "gateway" / "spool", locks=False)
    with socket.socket(socket.AF_UNIX) as admin:
        folder = os.open(home / "gateway", os.O_RDONLY)
        admin.bind(f"/proc/self/fd/{folder}/admin.sock")
        admin.listen()
        os.close(folder)
        id, process = spool.request(), collector(home)
        answered, deadline = spool.exchange(), time.monotonic() + READY_S
        while not (home / "audit" / "log").exists():
            assert time.monotonic() < deadline, (home / "collector.log").read_text()
            time.sleep(0.05)
        time.sleep(2 * LOOK_S)
        assert sealed_ids(home, "team-a") == [answered]
    while len(sealed_ids(home, "team-a")) < 2:
        assert time.monotonic() < deadline, (home / "collector.log").read_text()
        time.sleep(0.05)
    assert sealed_ids(home, "team-a") == [answered, id]
    process.terminate()
    assert process.wait(timeout=READY_S) == 0
