"""Landing zones in a bucket: what the sensor sees, what a run fetches, and what is refused."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from llm_assets.catalog.loading import load_catalog
from llm_assets.dataset_checks import check_datasets
from llm_assets.datasets.limits import Limits
from llm_assets.datasets.mistakes import DatasetError
from llm_assets.folder_stamps import files_of_dataset, stamp_of
from llm_assets.graph import build_definitions
from llm_assets.installation.settings import Settings
from llm_assets.landing_zones import opened_zone, zones_of
from resources.object_stores.objects import ObjectStore
from resources.object_stores.opening import open_object_store
from tests.buckets import Bucket, gcs_bucket, s3_bucket

PROJECT = Path(__file__).parents[1] / "e2e" / "project"
LINE = "team-a/support_bot"
Put = Callable[[str, str], None]


@pytest.fixture(scope="module", params=["gs", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with gcs_bucket(tmp_path_factory.mktemp("gcs")) if request.param == "gs" else s3_bucket() as bucket:
        yield bucket


@pytest.fixture
def settings(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A project whose landing zones lie in a folder of the bucket that is this test's own."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "project"
    shutil.copytree(PROJECT, root)
    (root / "tiny_model").mkdir()
    url = f"{bucket.scheme}://models/{tmp_path.name}"
    return Settings(root=root, home=root / "home", landing_zones_at=url)


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_object_store(settings.landing_zones_at)


@pytest.fixture
def put(store: ObjectStore, tmp_path: Path) -> Put:
    def written(key: str, content: str) -> None:
        (tmp_path / "object").write_text(content)
        store.upload(tmp_path / "object", key, lambda _: None)

    return written


def stamp_of_fetched(settings: Settings) -> str:
    with opened_zone(settings, "team-a", "support_bot") as zone:
        return stamp_of(files_of_dataset(zone.folder))


def test_what_a_run_fetches_has_the_stamp_that_the_sensor_saw(settings: Settings, put: Put) -> None:
    put(f"{LINE}/rows.jsonl", '{"a": 1}\n')
    put(f"{LINE}/data/more.csv", "a\n1\n")
    put(f"{LINE}/.hidden.jsonl", "still being written")
    put(f"{LINE}/README.md", "no data")
    put("stray.jsonl", "of nobody")
    [(name, seen)] = zones_of(settings).stamps().items()
    assert name == LINE
    assert not settings.landing_zones.exists(), "a look fetches nothing"
    assert stamp_of_fetched(settings) == seen
    with opened_zone(settings, "team-a", "support_bot") as zone:
        assert [each.path.name for each in zone.entries(zone.path)] == ["data", "rows.jsonl"]


def test_only_what_changed_is_fetched_and_what_is_gone_goes(
    settings: Settings, store: ObjectStore, put: Put
) -> None:
    for name in ("a", "b", "c"):
        put(f"{LINE}/{name}.jsonl", '{"a": 1}\n')
    before, zone = stamp_of_fetched(settings), settings.landing_zones / LINE
    inode = (zone / "a.jsonl").stat().st_ino
    put(f"{LINE}/b.jsonl", '{"a": 2}\n')
    store.delete(f"{LINE}/c.jsonl")
    assert zones_of(settings).stamps()[LINE] == stamp_of_fetched(settings) != before
    assert sorted(path.name for path in zone.iterdir()) == ["a.jsonl", "b.jsonl"]
    assert (zone / "b.jsonl").read_text() == '{"a": 2}\n'
    assert (zone / "a.jsonl").stat().st_ino == inode


def test_another_machine_gives_the_same_stamp(settings: Settings, put: Put) -> None:
    put(f"{LINE}/rows.jsonl", "{}\n")
    other = Settings(
        root=settings.root, home=settings.root / "other", landing_zones_at=settings.landing_zones_at
    )
    assert stamp_of_fetched(settings) == stamp_of_fetched(other)


def test_the_sensor_asks_for_a_run_once_the_bucket_rests(settings: Settings, put: Put) -> None:
    definitions = build_definitions(settings, load_catalog(settings.catalog))
    sensor, cursor = definitions.resolve_sensor_def("landing_zones"), None
    put(f"{LINE}/rows.jsonl", "{}\n")
    with dg.DagsterInstance.ephemeral() as instance:
        requested = []
        for _ in range(3):
            context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions)
            result = sensor(context)
            if isinstance(result, dg.SensorResult):
                requested.append([run.partition_key for run in result.run_requests or []])
                cursor = result.cursor
            else:
                requested.append([])
                cursor = context.cursor
    assert requested == [[], ["team-a"], []]


def test_what_cannot_be_a_dataset_is_refused_by_name(settings: Settings, put: Put) -> None:
    with pytest.raises(DatasetError, match=f"there is no dataset in .*/{LINE}/; put its files there"):
        stamp_of_fetched(settings)
    put(f"{LINE}/rows.jsonl", "12345")
    with pytest.raises(DatasetError, match="its files have 5 bytes together, more than"):
        zones_of(settings).fetch("team-a", "support_bot", Limits(size_bytes=4))
    if settings.landing_zones_at.startswith("gs:"):
        return  # its stand-in keeps objects as files, and so refuses the next one itself
    put(f"{LINE}/rows.jsonl/more.jsonl", "x")
    with pytest.raises(DatasetError, match=r"rows\.jsonl/more\.jsonl: cannot be a file of a folder"):
        stamp_of_fetched(settings)


def test_a_check_says_what_is_there_and_reads_no_rows(settings: Settings, put: Put) -> None:
    put(f"{LINE}/rows.jsonl", "no JSON")
    checks = check_datasets(settings, load_catalog(settings.catalog))
    assert (checks.datasets, checks.mistakes, checks.waiting) == (1, [], ["team-b/support_bot"])
    assert settings.landing_zones_at in checks.warnings[0]
