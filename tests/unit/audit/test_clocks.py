"""Clocks that are set, machines that begin anew, heads that are put back: no answer is lost."""

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from resources.audit.anchors import Anchors
from resources.audit.chain import SegmentLimits
from resources.audit.publishing import Publisher
from resources.audit.retention import DAY_S, Keeping, delete_due
from resources.audit.run_time import Clocks
from resources.audit.searching import Query, opened, search
from resources.audit.segments import HEAD, segments_in
from resources.audit.subject_keys import SubjectKeys
from resources.audit.verifying import verify_tenant
from resources.object_stores.disk import DiskStore
from tests.unit.audit.conftest import Log, MakeLog
from tests.unit.audit.spooling import GatewaySpool

ARRANGEMENTS, ALL_ARRANGEMENTS, STEPS = 10, 200, 40
KEPT_DAYS = 183
STEP_NAMES = (
    *("answer",) * 6,
    *("ask",) * 3,
    *("end",) * 3,
    *("pass_time",) * 4,
    *("set_clock",) * 3,
    *("begin_collector", "begin_gateway", "begin_machine", "publish", "retain", "retain"),
    *("put_back_older_head", "remove_head", "put_back_older_log"),
)
TENANT = "team-a"
BEGAN = datetime(2026, 11, 30, tzinfo=UTC).timestamp()


@dataclass
class Machine:
    """Its clocks: what passes, what somebody sets, and when it began."""

    passed_s: float = 0.0
    set_s: float = 0.0
    began_s: float = 0.0
    boots: int = 1

    @property
    def clocks(self) -> Clocks:
        return Clocks(
            now=self.now, up_s=lambda: self.passed_s - self.began_s, boot=lambda: f"boot {self.boots}"
        )

    def now(self) -> float:
        return BEGAN + self.passed_s + self.set_s

    def begin_anew(self) -> None:
        self.began_s, self.boots = self.passed_s, self.boots + 1


@dataclass
class World:
    """A log, its gateway and its store on such a machine, and what must be true of them."""

    log: Log
    machine: Machine
    store: DiskStore
    chance: random.Random
    answered: dict[str, float] = field(default_factory=dict)  # ids, and when
    open: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)  # by somebody who put an older log there
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.publisher = Publisher(self.log.places, self.store, self.log.sealer.signing)

    @property
    def folder(self) -> Path:
        return self.log.places.log(TENANT)

    def step(self) -> None:
        name = self.chance.choice(STEP_NAMES)
        self.done.append(name)
        getattr(self, name)()
        if self.chance.random() < 0.7:
            self.log.collect()

    def answer(self) -> None:
        for _ in range(self.chance.randrange(1, 4)):
            self.ask()
            self.end()

    def ask(self) -> None:
        at = round(self.machine.now(), 6)
        self.open.append(self.log.spool.request(TENANT, at=at, risk_class="high", input="a question"))

    def end(self) -> None:
        if self.open:
            id = self.open.pop(self.chance.randrange(len(self.open)))
            self.log.spool.response(id, at=round(self.machine.now(), 6), output=f"the answer of {id}")
            self.answered[id] = self.machine.passed_s

    def pass_time(self) -> None:
        for _ in range(self.chance.randrange(1, 4)):
            self.machine.passed_s += self.chance.choice([60, 3600, DAY_S, 20 * DAY_S])
            self.log.sealer.run_time.tick()
        self.log.sealer.close_due(self.machine.now())

    def set_clock(self) -> None:
        self.machine.set_s += self.chance.choice([-400, -200, -1, -0.001, 0.001, 1, 200, 400]) * DAY_S

    def begin_collector(self) -> None:
        self.log.begin()
        self.publisher = Publisher(self.log.places, self.store, self.log.sealer.signing)

    def begin_gateway(self) -> None:
        """Numbered as `spool.lua` does it; what was open is interrupted."""
        self.log.spool.close()
        there = [int(path.name.partition("-")[0]) for path in self.log.spool.folder.glob("*.jsonl")]
        boot = max(int(self.machine.now() * 1000), max(there, default=0) + 1)
        self.log.spool = GatewaySpool(self.log.spool.folder, boot=boot)
        self.open.clear()

    def begin_machine(self) -> None:
        self.machine.passed_s += 600
        self.machine.begin_anew()
        self.begin_gateway()
        self.begin_collector()

    def publish(self) -> None:
        self.publisher.publish()

    def retain(self) -> None:
        before = {record["id"] for record in self.log.records()}
        delete_due(self.log.sealer, TENANT, Keeping(days=KEPT_DAYS))
        for id in before - {record["id"] for record in self.log.records()}:
            if id in self.answered:
                assert self.machine.passed_s - self.answered.pop(id) >= KEPT_DAYS * DAY_S, "deleted early"

    @contextmanager
    def as_it_was(self) -> Iterator[Path]:
        """The folder of the log before some more was sealed and brought to the store."""
        self.log.collect()
        aside = self.log.home / "aside"
        if self.folder.exists():
            shutil.copytree(self.folder, aside)
        self.answer()
        self.log.collect()
        self.publish()
        yield aside
        shutil.rmtree(aside, ignore_errors=True)
        self.begin_collector()

    def put_back_older_head(self) -> None:
        with self.as_it_was() as aside:
            if (aside / HEAD).exists():
                shutil.copyfile(aside / HEAD, self.folder / HEAD)

    def remove_head(self) -> None:
        with self.as_it_was():
            (self.folder / HEAD).unlink()

    def put_back_older_log(self) -> None:
        with self.as_it_was() as aside:
            if aside.exists():
                before = {record["id"] for record in self.log.records()}
                shutil.rmtree(self.folder)
                aside.rename(self.folder)
                self.taken |= before - {record["id"] for record in self.log.records()}

    def check(self) -> None:
        """Everything that was answered is there, once, as it was answered; what somebody took is missed."""
        self.log.collect()
        self.publish()
        records = [record for record in self.log.records() if record["kind"] == "request"]
        keys = SubjectKeys(self.log.places.keys(TENANT))
        keys.begin()
        found = {record["id"]: record for record in records}
        assert len(found) == len(records), "sealed twice"
        for id in self.answered.keys() - self.taken:
            assert id in found, "lost"
            assert found[id]["outcome"] == "ok"
            assert opened(found[id], keys)["personal"]["output"] == f"the answer of {id}"
        anchors = Anchors(objects=self.store)
        faults = verify_tenant(self.log.places, TENANT, self.log.sealer.signing, anchors).faults
        if self.taken:
            assert faults, "what was taken is not missed"
        elif "remove_head" not in self.done:
            assert faults == ()


@pytest.mark.parametrize("count", [ARRANGEMENTS, pytest.param(ALL_ARRANGEMENTS, marks=pytest.mark.long)])
def test_no_arrangement_of_clocks_and_heads_loses_an_answer(
    make_log: MakeLog, tmp_path: Path, count: int
) -> None:
    for number in range(count):
        machine, chance = Machine(), random.Random(number)
        log = make_log(
            limits=SegmentLimits(records=5), clocks=machine.clocks, pseudonymize=lambda text, _: text
        )
        world = World(log, machine, DiskStore(tmp_path / f"store-{number}"), chance)
        try:
            for _ in range(STEPS):
                world.step()
            world.check()
        except Exception as error:
            raise AssertionError(f"arrangement {number}: {world.done}") from error
        log.close()
        shutil.rmtree(log.home)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def log(make_log: MakeLog, machine: Machine) -> Log:
    return make_log(limits=SegmentLimits(records=2), clocks=machine.clocks)


def test_a_clock_that_is_set_200_days_ahead_deletes_nothing(log: Log, machine: Machine) -> None:
    log.fill(2)
    log.fill(2)
    machine.set_s = 200 * DAY_S
    log.sealer.run_time.tick()
    assert delete_due(log.sealer, TENANT, Keeping(days=KEPT_DAYS)) == 0
    machine.passed_s += KEPT_DAYS * DAY_S
    assert delete_due(log.sealer, TENANT, Keeping(days=KEPT_DAYS)) == 1


def test_days_on_which_the_machine_was_off_do_not_count(log: Log, machine: Machine) -> None:
    log.sealer.run_time.tick()
    log.fill(2)
    log.fill(2)
    for _ in range(2):
        machine.passed_s += 100 * DAY_S
        log.sealer.run_time.tick()
        machine.passed_s += 30 * DAY_S
        machine.begin_anew()
        log.sealer.run_time.tick()
    assert log.sealer.run_time.moment().ran_s == 200 * DAY_S
    assert delete_due(log.sealer, TENANT, Keeping(days=201)) == 0
    assert delete_due(log.sealer, TENANT, Keeping(days=200)) == 1


def test_where_no_boot_has_a_name_a_new_one_is_told_by_the_seconds_since_it_began(make_log: MakeLog) -> None:
    """As in a container that does not show it."""
    machine = Machine()
    log = make_log(clocks=replace(machine.clocks, boot=lambda: ""))
    machine.passed_s = 10 * DAY_S
    log.sealer.run_time.tick()
    machine.passed_s += DAY_S
    assert log.sealer.run_time.tick() == 0
    machine.passed_s += 5 * DAY_S
    machine.begin_anew()
    log.sealer.run_time.tick()
    assert log.sealer.run_time.moment().ran_s == DAY_S


def test_a_run_time_that_is_altered_or_taken_away_begins_anew(
    log: Log, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    log.sealer.run_time.tick()
    machine.passed_s += 1000 * DAY_S
    log.sealer.run_time.tick()
    path = log.places.run_time
    path.write_bytes(path.read_bytes().replace(b'\\"ran_s\\":', b'\\"ran_s\\":9'))
    assert log.sealer.run_time.moment().ran_s == 0
    assert "How long this installation has run is counted anew" in caplog.text
    path.unlink()
    assert log.sealer.run_time.moment().ran_s == 0


@pytest.mark.parametrize("set_s", [-400 * DAY_S, -3600, 0, 3600, 200 * DAY_S])
def test_a_tick_says_how_far_the_clock_was_set(log: Log, machine: Machine, set_s: float) -> None:
    assert log.sealer.run_time.tick() == 0
    machine.passed_s += 60
    machine.set_s += set_s
    assert log.sealer.run_time.tick() == pytest.approx(set_s, abs=1e-3)
    machine.set_s -= 7200
    machine.passed_s += 60
    machine.begin_anew()
    assert log.sealer.run_time.tick() == pytest.approx(-7140, abs=1e-3), (
        "over a new beginning: that it went back"
    )


def test_a_search_by_time_finds_what_was_sealed_before_the_clock_went_back(
    log: Log, machine: Machine
) -> None:
    id = log.spool.exchange(at=machine.now())
    log.collect()
    machine.set_s = -10 * DAY_S
    log.fill(3)
    assert segments_in(log.places.log(TENANT))[0].seal.exists()
    query = Query(tenant=TENANT, since=BEGAN - 1)
    assert id in {record["id"] for record in search(log.places, log.sealer.index, query)}
