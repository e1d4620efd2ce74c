"""Do the sensors run from the start? On under `llm-assets up`, off in the demo and in plain `dagster dev`."""

import os

import dagster as dg

AUTOMATION = "LLM_ASSETS_AUTOMATION"


def sensor_status() -> dg.DefaultSensorStatus:
    running = os.environ.get(AUTOMATION) == "on"
    return dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED
