"""A tenant exchanges its folder, or a file in it, for a link to another tenant's as its dataset is made."""

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llm_assets.catalog.loading import load_catalog
from llm_assets.datasets.checking import Terms, look_into
from llm_assets.datasets.landing_zone import LandingZone, fingerprint, opened_landing_zone
from llm_assets.datasets.limits import Limits
from llm_assets.datasets.mistakes import DatasetError
from llm_assets.datasets.preparation import prepare
from llm_assets.graph import build_definitions
from llm_assets.installation.profiles import profile_of
from llm_assets.installation.settings import Settings
from llm_assets.keys import DATASET, base_model_key, model_key
from llm_assets.lineage import DATA_VERSION_TAG
from llm_assets.presentation import artifact_metadata
from resources.artifact_store.artifacts import Line
from resources.waiting import wait_until

PROJECT = Path(__file__).parents[2] / "e2e" / "project"
OWN, OTHERS = "what team-a says", "what team-b keeps to itself"
FORMATS = (".jsonl", ".json", ".csv", ".parquet", ".txt")
NOT_FOLLOWED = "is a symbolic link, and none is followed"


def write(path: Path, said: str) -> None:
    """Twenty rows that all say whose they are, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"text": f"{said} {number}"} for number in range(20)]
    match path.suffix:
        case ".json":
            path.write_text(json.dumps(rows))
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".parquet":
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case _:
            header = "text\n" if path.suffix == ".csv" else ""
            path.write_text(header + "".join(row["text"] + "\n" for row in rows))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Landing zones of two tenants, a file of each format in both."""
    for suffix in FORMATS:
        write(tmp_path / "datasets" / "team-a" / "bot" / f"rows{suffix}", OWN)
        write(tmp_path / "datasets" / "team-b" / "bot" / f"rows{suffix}", OTHERS)
    return tmp_path / "datasets"


@contextmanager
def opened(root: Path) -> Iterator[LandingZone]:
    with opened_landing_zone(root / "team-a" / "bot", root, Limits()) as zone:
        yield zone


def prepared(zone: LandingZone, output: Path, tokenizer_file: Path) -> str:
    """All that is written of the dataset."""
    options: dict[str, Any] = {"stage": "pt", "cutoff_len": 64, "held_out_fraction": 0.1, "seed": 1}
    prepare(zone, output, tokenizer_file=tokenizer_file, **options)
    return "".join(file.read_text() for file in output.iterdir())


def exchange_folder(root: Path) -> None:
    (root / "team-a" / "bot").rename(root / ".aside")
    (root / "team-a" / "bot").symlink_to(root / "team-b" / "bot")


def exchange_tenant(root: Path) -> None:
    (root / "team-a").rename(root / ".aside")
    (root / "team-a").symlink_to(root / "team-b")


@pytest.mark.parametrize("exchange", [exchange_folder, exchange_tenant])
def test_a_folder_that_becomes_a_link_is_read_as_it_was_opened_or_refused(
    root: Path, tmp_path: Path, tokenizer_file: Path, exchange: Callable[[Path], None]
) -> None:
    with opened(root) as zone:
        before = fingerprint(zone)
        exchange(root)
        assert fingerprint(zone) == before
        written = prepared(zone, tmp_path / "out", tokenizer_file)
    assert OWN in written
    assert OTHERS not in written
    with pytest.raises(DatasetError, match=NOT_FOLLOWED), opened(root):
        pass
    terms = Terms(stage="pt", train_on_prompt=False, holds_out=True)
    [mistake] = look_into(root / "team-a" / "bot", root, terms, Limits()).mistakes
    assert NOT_FOLLOWED in mistake.problem


@pytest.mark.parametrize("looked_at", [False, True])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_becomes_a_link_is_refused_in_every_format(
    root: Path, tmp_path: Path, tokenizer_file: Path, suffix: str, looked_at: bool
) -> None:
    own = root / "team-a" / "bot" / f"rows{suffix}"
    with opened(root) as zone:
        if looked_at:
            fingerprint(zone)
        own.unlink()
        own.symlink_to(root / "team-b" / "bot" / own.name)
        with pytest.raises(DatasetError, match=f"{own.name}: {NOT_FOLLOWED}"):
            prepared(zone, tmp_path / "out", tokenizer_file)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_is_another_than_was_looked_at_is_refused_in_every_format(
    root: Path, tmp_path: Path, tokenizer_file: Path, suffix: str
) -> None:
    own, others = (root / tenant / "bot" / f"rows{suffix}" for tenant in ("team-a", "team-b"))
    times = own.stat().st_mtime_ns
    with opened(root) as zone:
        fingerprint(zone)
        own.unlink()
        os.link(others, own)
        os.utime(own, ns=(times, times))
        with pytest.raises(DatasetError, match=f"{own.name}: changed while it was read"):
            prepared(zone, tmp_path / "out", tokenizer_file)


class Moments:
    """Does something right before a file or folder is opened, counted by Python's audit hook."""

    def __init__(self) -> None:
        self.passed = 0
        self.planned: dict[int, Callable[[], None]] = {}
        self._counting = False
        sys.addaudithook(self._heard)

    def _heard(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if self._counting and event in ("open", "os.scandir"):
            self.passed += 1
            self.planned.get(self.passed, lambda: None)()

    @contextmanager
    def counted(self, **planned: Callable[[], None]) -> Iterator[None]:
        """`at_7=…` is done at the seventh."""
        self.passed, self.planned = 0, {int(name.removeprefix("at_")): do for name, do in planned.items()}
        self._counting = True
        try:
            yield
        finally:
            self._counting = False


@pytest.fixture(scope="module")
def moments() -> Moments:
    return Moments()


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.long)])
def test_at_no_moment_an_exchange_makes_a_row_of_another_tenant_read(
    root: Path, tmp_path: Path, tokenizer_file: Path, moments: Moments, step: int
) -> None:
    """The tenant's folder, the landing zone or a file becomes a link, for good or until the next moment."""
    own, others = root / "team-a", root / "team-b"
    for tenant in (own, others):
        (tenant / "bot" / "rows.parquet").unlink()  # a process for each race; the tests above have it
        (tenant / "bot" / "parts").mkdir()
        (tenant / "bot" / "rows.csv").rename(tenant / "bot" / "parts" / "rows.csv")
        names = ("rows.jsonl", "rows.json", "rows.txt", "parts/rows.csv")
        info = {name: {"file_name": name, "columns": {"prompt": "text"}} for name in names}
        (tenant / "bot" / "dataset_info.json").write_text(json.dumps(info))
    with moments.counted():
        read_once(root, tmp_path / "out", tokenizer_file)
    places = [own, *sorted(own.rglob("*"))]
    cases = [
        (place, moment, undone)
        for place in places
        for moment in range(1, moments.passed + 1)
        for undone in (False, True)
    ]
    outcomes = {"refused": 0, "prepared": 0}
    for place, moment, undone in cases[::step]:
        exchange = Exchange(place, others / place.relative_to(own))
        planned = {f"at_{moment}": exchange.make} | ({f"at_{moment + 1}": exchange.undo} if undone else {})
        try:
            with moments.counted(**planned):
                written = read_once(root, tmp_path / "out", tokenizer_file)
            assert OTHERS not in written
            assert OWN in written
            outcomes["prepared"] += 1
        except DatasetError:
            outcomes["refused"] += 1
        exchange.undo()
    assert sum(outcomes.values()) > 1000 / step
    assert min(outcomes.values()) > sum(outcomes.values()) / 20, outcomes


def read_once(root: Path, output: Path, tokenizer_file: Path) -> str:
    try:
        with opened(root) as zone:
            return fingerprint(zone) + prepared(zone, output, tokenizer_file)
    finally:
        shutil.rmtree(output, ignore_errors=True)


class Exchange:
    """A link to the other tenant's in a place, and the place as it was again."""

    def __init__(self, place: Path, others: Path) -> None:
        self._place, self._others = place, others
        self._aside = place.with_name(".aside")

    def make(self) -> None:
        self._place.rename(self._aside)
        self._place.symlink_to(self._others)

    def undo(self) -> None:
        if self._aside.exists():
            self._place.unlink()
            self._aside.rename(self._place)


def test_a_run_that_waited_its_turn_opens_the_landing_zone_afterwards(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    """The folder becomes a link to another tenant's while the run waits."""
    root = tmp_path / "project"
    shutil.copytree(PROJECT, root)
    (root / "tiny_model").mkdir()
    settings = Settings(root=root, catalog=root / "catalog", home=root / "home")
    own = settings.landing_zones / "team-a" / "support_bot"
    definitions = build_definitions(settings, load_catalog(settings.catalog))
    profile = profile_of(settings)
    store, state = profile.store, profile.state
    shutil.copytree(tokenizer_file.parent, tmp_path / "base")
    base = store.publish(Line(collection="base_models", tenant=None, name="tiny"), tmp_path / "base", {})
    holding = threading.Event()

    def exchange(instance: dg.DagsterInstance) -> None:
        with state.turn("team-a", "support_bot", "build", doing="another run", say=print):
            holding.set()
            wait_until(lambda: is_waiting(instance), what="the run", timeout_s=120, every_s=0.05)
            own.rename(tmp_path / "aside")
            own.symlink_to(settings.landing_zones / "team-b" / "support_bot")

    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        key = base_model_key("tiny")
        tags = {DATA_VERSION_TAG: base.digest}
        event = dg.AssetMaterialization(key, metadata=artifact_metadata(base), tags=tags)
        instance.report_runless_asset_event(event)
        instance.add_dynamic_partitions("support_bot", ["team-a"])
        other = threading.Thread(target=exchange, args=(instance,))
        other.start()
        assert holding.wait(60)
        with pytest.raises(DatasetError, match=f"support_bot: {NOT_FOLLOWED}"):
            dg.materialize(
                [definitions.get_assets_def(model_key("support_bot", DATASET))],
                partition_key="team-a",
                resources=profile.resources(),
                instance=instance,
            )
        other.join()
    assert list(store.versions(Line(collection="datasets", tenant="team-a", name="support_bot"))) == []


def is_waiting(instance: dg.DagsterInstance) -> bool:
    logs = [entry.user_message for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]
    return any("is taken by another run" in message for message in logs)
