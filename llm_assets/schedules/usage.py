"""Usage is counted every hour: today's so far, and yesterday's until its last records are surely sealed."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from llm_assets.installation.settings import Settings
from llm_assets.keys import USAGE_KEY
from llm_assets.usage import SETTLED_S, UsageTables, bounds_of
from resources.object_stores.opening import open_object_store

HOURLY = "5 * * * *"


def usage_schedule(settings: Settings, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    @dg.schedule(
        name="usage",
        cron_schedule=HOURLY,
        target=dg.AssetSelection.assets(USAGE_KEY),
        default_status=status,
        execution_timezone="UTC",
    )
    def _schedule(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        """Counts yesterday until it is settled, and today."""
        if not settings.audit.is_dir():
            return dg.SkipReason(f"No request was ever recorded: there is no {settings.audit}.")
        now = context.scheduled_execution_time.astimezone(UTC)
        return [dg.RunRequest(partition_key=day) for day in days_to_count(settings, now)]

    return _schedule


def days_to_count(settings: Settings, now: datetime) -> list[str]:
    """Today, after yesterday if that was not counted since it settled."""
    today, yesterday = now.date(), now.date() - timedelta(days=1)
    counted_at = UsageTables(objects=open_object_store(settings.store_url)).counted_at(yesterday)
    counted = counted_at is not None and counted_at.timestamp() >= bounds_of(yesterday)[1] + SETTLED_S
    return [day.isoformat() for day in ((today,) if counted else (yesterday, today))]
