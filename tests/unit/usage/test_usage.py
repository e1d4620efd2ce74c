"""Usage and its cost, from audit records that a real collector sealed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llm_assets.catalog.loading import load_catalog
from llm_assets.catalog.mistakes import CatalogError
from llm_assets.graph import build_definitions
from llm_assets.installation.settings import Settings
from llm_assets.keys import USAGE_KEY
from llm_assets.schedules.usage import days_to_count
from llm_assets.usage import SETTLED_S, UsageTables, bounds_of, usage_of
from llm_assets.usage_records import asked_on
from resources.artifact_store.store import ArtifactStore
from resources.object_stores.opening import open_object_store
from tests.unit.audit.conftest import Log

PROJECT = Path(__file__).parents[2] / "e2e" / "project"
PRICE = "price: {currency: EUR, prompt_per_million: 0.5, completion_per_million: 1.5}\n"
TODAY = datetime.now(UTC).date()
NOW = datetime.now(UTC).timestamp()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A project whose model has a price."""
    root = tmp_path / "project"
    shutil.copytree(PROJECT, root)
    (root / "tiny_model").mkdir()
    with (root / "catalog" / "models" / "support_bot.yaml").open("a") as file:
        file.write(PRICE)
    return Settings(root=root, catalog=root / "catalog", home=root / "home")


@pytest.fixture
def log(settings: Settings) -> Iterator[Log]:
    log = Log(settings.home)
    yield log
    log.close()


def tables_of(settings: Settings) -> UsageTables:
    return UsageTables(objects=open_object_store(settings.store_url))


def asked(log: Log, tenant: str, *, prompt: int, completion: int, **given: Any) -> None:
    id = log.spool.request(tenant, **given)
    log.spool.response(id, prompt_tokens=prompt, completion_tokens=completion)


def counted(settings: Settings, day: date = TODAY) -> list[tuple[Any, ...]]:
    rows = usage_of(day, asked_on(settings, day), load_catalog(settings.catalog).models)
    return [
        (
            row.tenant,
            row.version,
            row.requests,
            row.failed,
            row.prompt_tokens,
            row.completion_tokens,
            row.cost,
        )
        for row in rows
    ]


def test_tokens_and_cost_add_up_by_tenant_and_version(settings: Settings, log: Log) -> None:
    asked(log, "team-a", prompt=1_000_000, completion=200_000, version="v1")
    asked(log, "team-a", prompt=500_000, completion=0, version="v1")
    asked(log, "team-a", prompt=3, completion=1, version="v2")
    asked(log, "team-b", prompt=10, completion=20, version="v1")
    log.collect()
    assert counted(settings) == [
        ("team-a", "v1", 2, 0, 1_500_000, 200_000, Decimal("1.05")),
        ("team-a", "v2", 1, 0, 3, 1, Decimal("0.000003")),
        ("team-b", "v1", 1, 0, 10, 20, Decimal("0.000035")),
    ]


def test_a_refusal_is_no_usage_and_an_answer_cut_off_is_a_request_that_failed(
    settings: Settings, log: Log
) -> None:
    denied = {"e": "denied", "id": "d1", "at": NOW, "tenant": "team-a", "key": None, "status": 429}
    log.spool.write({**denied, "reason": "requests_per_minute", "remote": "203.0.113.7"})
    aborted = log.spool.request("team-a", version="v1")
    log.spool.write({"e": "aborted", "id": aborted, "at": NOW, "first_byte_ms": None})
    log.collect()
    assert counted(settings) == [("team-a", "v1", 1, 1, 0, 0, Decimal(0))]


def test_a_request_belongs_to_the_day_in_which_it_was_asked(settings: Settings, log: Log) -> None:
    start, _ = bounds_of(TODAY)
    asked(log, "team-a", prompt=1, completion=0, version="v1", at=start - 0.001)
    asked(log, "team-a", prompt=2, completion=0, version="v1", at=start)
    log.collect()
    yesterday = TODAY - timedelta(days=1)
    assert [row[4] for row in counted(settings, yesterday)] == [1]
    assert [row[4] for row in counted(settings)] == [2]


def test_a_model_without_a_price_or_out_of_the_catalog_has_usage_and_no_cost(
    settings: Settings, log: Log
) -> None:
    asked(log, "team-a", prompt=5, completion=5, version="v1", model="forgotten")
    log.collect()
    [row] = usage_of(TODAY, asked_on(settings, TODAY), load_catalog(settings.catalog).models)
    assert (row.model, row.requests, row.currency, row.cost) == ("forgotten", 1, None, None)


def test_the_asset_writes_the_days_table_and_shows_it(settings: Settings, log: Log, tmp_path: Path) -> None:
    asked(log, "team-a", prompt=1_000, completion=1_000, version="v1")
    log.collect()
    definitions = build_definitions(settings, load_catalog(settings.catalog))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        result = dg.materialize(
            [definitions.get_assets_def(USAGE_KEY)],
            partition_key=TODAY.isoformat(),
            resources={"settings": settings, "artifact_store": ArtifactStore(url=settings.store_url)},
            instance=instance,
        )
    metadata = result.asset_materializations_for_node("gateway__usage")[0].metadata
    assert metadata["llm/cost_eur"].value == pytest.approx(0.002)
    assert "| team-a | support_bot | v1 | 1 |" in str(metadata["llm/usage"].value)
    [row] = tables_of(settings).read(TODAY) or []
    assert (row.day, row.tenant, row.completion_tokens, row.cost) == (
        TODAY,
        "team-a",
        1_000,
        Decimal("0.002"),
    )


def test_a_day_that_is_over_keeps_the_prices_of_then(settings: Settings, log: Log) -> None:
    day = TODAY - timedelta(days=3)
    asked(log, "team-a", prompt=1_000_000, completion=0, version="v1", at=bounds_of(day)[0] + 5)
    log.collect()
    before = usage_of(day, asked_on(settings, day), load_catalog(settings.catalog).models)
    tables_of(settings).write(day, before, counted_at=datetime.now(UTC))
    model = settings.catalog / "models" / "support_bot.yaml"
    model.write_text(model.read_text().replace("prompt_per_million: 0.5", "prompt_per_million: 9"))
    assert shown(settings, "--tenant", "team-a") == [("team-a", "0.500000")]
    assert shown(settings, "--tenant", "team-b") == []
    assert shown(settings, "--since", (TODAY - timedelta(days=2)).isoformat()) == []


def shown(settings: Settings, *options: str) -> list[tuple[str, str]]:
    """`llm-assets usage` without the other commands, whose imports take seconds."""
    command = "import typer; from llm_assets.cli.usage import usage; typer.run(usage)"
    environment = os.environ | {
        "LLM_ASSETS_ROOT": str(settings.root),
        "LLM_ASSETS_CATALOG": str(settings.catalog),
        "LLM_ASSETS_HOME": str(settings.home),
    }
    done = subprocess.run(
        [sys.executable, "-c", command, "--json", *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(row["tenant"], row["cost"]) for row in json.loads(done.stdout)]


def test_yesterday_is_counted_until_it_has_settled(settings: Settings) -> None:
    tables, yesterday = tables_of(settings), TODAY - timedelta(days=1)
    now = datetime.combine(TODAY, datetime.min.time(), tzinfo=UTC) + timedelta(hours=5)
    both = [yesterday.isoformat(), TODAY.isoformat()]
    assert days_to_count(settings, now) == both
    settled_at = datetime.fromtimestamp(bounds_of(yesterday)[1] + SETTLED_S, UTC)
    tables.write(yesterday, [], counted_at=settled_at - timedelta(seconds=1))
    assert days_to_count(settings, now) == both
    tables.write(yesterday, [], counted_at=settled_at)
    assert days_to_count(settings, now) == [TODAY.isoformat()]


@pytest.mark.parametrize(
    ("price", "complaint"),
    [
        ("{currency: euro, prompt_per_million: 1, completion_per_million: 1}", "currency"),
        ("{currency: EUR, prompt_per_million: -1, completion_per_million: 1}", "prompt_per_million"),
        ("{currency: EUR, prompt_per_million: 1}", "completion_per_million"),
    ],
)
def test_a_price_that_cannot_be_charged_is_refused(settings: Settings, price: str, complaint: str) -> None:
    model = settings.catalog / "models" / "support_bot.yaml"
    model.write_text(model.read_text().replace(PRICE, f"price: {price}\n"))
    with pytest.raises(CatalogError, match=complaint):
        load_catalog(settings.catalog)
