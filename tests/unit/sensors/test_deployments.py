"""The sensor that looks at deployments, on a real Dagster instance, beside a server that died."""

import shutil
import time
from pathlib import Path

import dagster as dg
import pytest

from llm_assets.catalog.loading import load_catalog
from llm_assets.graph import build_definitions
from llm_assets.installation.profiles import profile_of
from llm_assets.installation.settings import Settings
from llm_assets.keys import VLLM_DEPLOYMENT, model_key
from resources.local.serving.deployment_folder import DeploymentFolder
from resources.seams.serving import Backend

PROJECT = Path(__file__).parents[2] / "e2e" / "project"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    root = tmp_path / "project"
    shutil.copytree(PROJECT, root)
    (root / "tiny_model").mkdir()
    return Settings(root=root, catalog=root / "catalog", home=root / "home")


def tick(settings: Settings, instance: dg.DagsterInstance) -> str:
    definitions = build_definitions(settings, load_catalog(settings.catalog))
    sensor = definitions.resolve_sensor_def("deployments")
    resources = {"serving": profile_of(settings).serving}
    with dg.build_sensor_context(instance=instance, definitions=definitions, resources=resources) as context:
        data = sensor.evaluate_tick(context)
    assert not data.run_requests
    return str(data.skip_message)


def test_it_says_that_nothing_is_deployed(settings: Settings, tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert "Nothing is deployed of 1 models." in tick(settings, instance)


def test_a_server_that_died_is_observed_on_its_tenants_partition(settings: Settings, tmp_path: Path) -> None:
    gone = Backend(
        id="vllm--gone",
        version="v1",
        digest="sha256:v1",
        fingerprint="sha256:f",
        address="unix:sockets/gone.sock",
        weight=100,
        since=time.time(),
    )
    DeploymentFolder(path=settings.home / "serving" / "team-a" / "support_bot").write((gone,))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert "Observed 1 deployments, 0 live; no run is needed for that." in tick(settings, instance)
        key = model_key("support_bot", VLLM_DEPLOYMENT)
        [record] = instance.fetch_observations(key, limit=5).records
    assert record.partition_key == "team-a"
    assert record.asset_observation is not None
    assert record.asset_observation.metadata["llm/state"].value == "dead"
    assert "its process record vllm--gone is gone" in str(record.asset_observation.metadata["llm/why"].value)
