"""`gateway/usage`: who used how much of what in a day, and what it costs."""

from datetime import UTC, date, datetime

import dagster as dg

from llm_assets.assets.parameters import read_once
from llm_assets.catalog.loading import Catalog
from llm_assets.installation.settings import Settings
from llm_assets.keys import GATEWAY, USAGE_KEY
from llm_assets.presentation import table
from llm_assets.usage import Usage, UsageTables, totals, usage_of
from llm_assets.usage_records import asked_on
from resources.artifact_store.store import ArtifactStore

FIRST_DAY = "2026-11-22"  # there was no gateway before
ROWS_SHOWN = 50
OWNER = "team:platform"

DAYS = dg.DailyPartitionsDefinition(start_date=FIRST_DAY, end_offset=1)  # today is a partition too


def usage(catalog: Catalog) -> dg.AssetsDefinition:
    """The asset of all tenants' usage, a partition a day."""

    @dg.asset(
        key=USAGE_KEY,
        partitions_def=DAYS,
        group_name=GATEWAY,
        kinds={"parquet"},
        owners=[OWNER],
        code_version="1",
        description="Requests, prompt and completion tokens and their cost on a day (UTC), per tenant, model "
        "and version, counted from the sealed audit records; prices are the models' `price` in the catalog.",
    )
    @read_once
    def _usage(
        context: dg.AssetExecutionContext, artifact_store: ArtifactStore, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        day = date.fromisoformat(context.partition_key)
        rows = usage_of(day, asked_on(settings, day), catalog.models)
        tables = UsageTables(objects=artifact_store.objects)
        digest = tables.write(day, rows, counted_at=datetime.now(UTC))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(f"sha256:{digest}"), metadata=_facts(rows, tables.uri(day))
        )

    return _usage


def _facts(rows: list[Usage], uri: str) -> dict[str, dg.MetadataValue]:
    most = sorted(rows, key=lambda row: row.prompt_tokens + row.completion_tokens, reverse=True)
    facts: dict[str, dg.MetadataValue] = {
        "dagster/uri": dg.MetadataValue.text(uri),
        "dagster/row_count": dg.MetadataValue.int(len(rows)),
        "llm/tenants": dg.MetadataValue.int(len({row.tenant for row in rows})),
        "llm/requests": dg.MetadataValue.int(sum(row.requests for row in rows)),
        "llm/prompt_tokens": dg.MetadataValue.int(sum(row.prompt_tokens for row in rows)),
        "llm/completion_tokens": dg.MetadataValue.int(sum(row.completion_tokens for row in rows)),
        "llm/usage": table([_shown(row) for row in most[:ROWS_SHOWN]]),
    }
    costs = {f"llm/cost_{currency.lower()}": float(cost) for currency, cost in totals(rows)}
    return facts | {name: dg.MetadataValue.float(cost) for name, cost in costs.items()}


def _shown(row: Usage) -> dict[str, object]:
    return {name: value for name, value in vars(row).items() if name != "day"} | {
        "cost": str(row.cost or "-")
    }
