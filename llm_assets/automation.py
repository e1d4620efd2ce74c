"""Do sensors and schedules run from the start? Under `llm-assets up` they do, in the demo they do not."""

import os

import dagster as dg

AUTOMATION = "LLM_ASSETS_AUTOMATION"


def sensor_status() -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if _running() else dg.DefaultSensorStatus.STOPPED


def schedule_status() -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if _running() else dg.DefaultScheduleStatus.STOPPED


def _running() -> bool:
    return os.environ.get(AUTOMATION) == "on"
