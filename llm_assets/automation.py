"""Do sensors and schedules run from the start? On under `llm-assets up`, off in the demo and in plain `dagster dev`."""

import os

import dagster as dg

AUTOMATION = "LLM_ASSETS_AUTOMATION"


def sensor_status() -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if _running() else dg.DefaultSensorStatus.STOPPED


def schedule_status() -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if _running() else dg.DefaultScheduleStatus.STOPPED


def _running() -> bool:
    return os.environ.get(AUTOMATION) == "on"
