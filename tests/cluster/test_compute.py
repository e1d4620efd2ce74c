"""The compute seam on a real cluster: its contract, and what goes wrong there alone."""

import threading
import time
from pathlib import Path

import pytest

from resources.artifact_store.artifacts import Line
from resources.kubernetes.cluster import Cluster
from resources.kubernetes.compute import KubernetesCompute, training_namespace
from resources.kubernetes.pods import MANAGED_BY
from resources.seams.compute import Needs, WorkOrderError
from tests.cluster.conftest import AlteredCluster, ClusterSite
from tests.contract.compute import test_compute as contract
from tests.contract.compute.test_compute import (
    Node,
    World,
    test_a_damaged_input_is_named_and_no_worker_is_started,
    test_a_file_that_is_not_what_the_worker_says_makes_no_version,
    test_a_file_that_is_reported_as_whole_is_sent_while_the_worker_goes_on,
    test_an_engine_that_was_killed_may_be_tried_again,
    test_an_order_without_output_leaves_nothing_and_sees_nothing_of_the_platform,
    test_inputs_come_as_they_were_published_and_what_the_worker_leaves_becomes_a_version,
)

pytestmark = [pytest.mark.cluster, pytest.mark.engine]

__all__ = [
    "test_a_damaged_input_is_named_and_no_worker_is_started",
    "test_a_file_that_is_not_what_the_worker_says_makes_no_version",
    "test_a_file_that_is_reported_as_whole_is_sent_while_the_worker_goes_on",
    "test_an_engine_that_was_killed_may_be_tried_again",
    "test_an_order_without_output_leaves_nothing_and_sees_nothing_of_the_platform",
    "test_inputs_come_as_they_were_published_and_what_the_worker_leaves_becomes_a_version",
]
WORKER = Path(contract.__file__).with_name("worker.py").read_text()
WORKER_PATH = "/opt/llm-assets/llm_assets/workers/contract.py"  # in the image
MANAGED = ",".join(f"{name}={value}" for name, value in MANAGED_BY.items())


@pytest.fixture
def world(cluster_site: ClusterSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The contract's, whose worker is put into the engine's image."""
    monkeypatch.setenv(contract.SECRET, "must not be seen by an engine")
    monkeypatch.setattr(
        contract, "LINE", Line(collection="adapters", tenant=cluster_site.tenant, name="support_bot")
    )
    altered = AlteredCluster(kubeconfig=cluster_site.kubeconfig, into="train", put=(WORKER_PATH, WORKER))
    store = cluster_site.store(tmp_path.name, tmp_path / "cache")
    node = Node(store=store, folder=tmp_path / "node", state=tmp_path, engines=tmp_path, image=tmp_path)
    node.folder.mkdir()
    return World(
        compute=compute_of(cluster_site, tmp_path, altered),
        store=store,
        node=node,
        objects=cluster_site.objects / tmp_path.name,
    )


def compute_of(cluster_site: ClusterSite, tmp_path: Path, cluster: Cluster) -> KubernetesCompute:
    return KubernetesCompute(
        cluster=cluster,
        pods=cluster_site.pods(tmp_path.name),
        store=cluster_site.store(tmp_path.name, tmp_path / "cache"),
        shared_namespace=cluster_site.shared_namespace,
        start_timeout_s=300,
        seconds=900,
    )


def test_a_job_is_gone_with_its_pod_once_its_order_has_ended(world: World, cluster_site: ClusterSite) -> None:
    world.run({"writes": {"weights": "w"}})
    namespace = training_namespace(cluster_site.tenant)
    assert cluster_site.cluster.find("Job", namespace, labelSelector=MANAGED) == []
    deadline = time.monotonic() + 60
    while cluster_site.cluster.find("Pod", namespace, labelSelector=MANAGED) and time.monotonic() < deadline:
        time.sleep(1)
    assert cluster_site.cluster.find("Pod", namespace, labelSelector=MANAGED) == []


def test_a_pod_that_someone_deletes_ends_the_order_with_a_reason_and_it_may_be_tried_again(
    world: World, cluster_site: ClusterSite
) -> None:
    namespace = training_namespace(cluster_site.tenant)

    def delete() -> None:
        for _ in range(300):
            for pod in cluster_site.cluster.find("Pod", namespace, labelSelector=MANAGED):
                if pod["status"]["phase"] == "Running":
                    cluster_site.cluster.delete("Pod", namespace, pod["metadata"]["name"])
                    return
            time.sleep(0.5)

    deleting = threading.Thread(target=delete)
    deleting.start()
    begun = time.monotonic()
    with pytest.raises(WorkOrderError, match=r"killed|BackoffLimitExceeded") as ended:
        world.run({"seconds": 200})
    deleting.join()
    assert ended.value.retriable
    assert time.monotonic() - begun < 150


def test_an_image_that_is_not_there_is_named(world: World, cluster_site: ClusterSite, tmp_path: Path) -> None:
    compute = compute_of(cluster_site, tmp_path, cluster_site.cluster)
    object.__setattr__(compute, "start_timeout_s", 20)
    object.__setattr__(compute.pods, "platform_image", "localhost/absent:1")
    object.__setattr__(world, "compute", compute)
    with pytest.raises(WorkOrderError, match=r"did not start in \d+ s: container stage: \w+: .*absent:1"):
        world.run({})


def test_what_no_node_has_is_waited_for_with_the_reason_of_kubernetes(
    world: World, cluster_site: ClusterSite, tmp_path: Path
) -> None:
    object.__setattr__(world.compute, "start_timeout_s", 5)
    with pytest.raises(WorkOrderError, match=r"did not start in \d+ s: Unschedulable: .*nvidia.com/gpu"):
        world.run({}, needs=Needs(gpus=1))


def test_a_pod_that_is_refused_is_told_with_the_reason(world: World, cluster_site: ClusterSite) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": cluster_site.shared_namespace},
        "spec": {"hard": {"pods": "0"}},
    }
    from kubernetes import client, config

    core = client.CoreV1Api(config.new_client_from_config(config_file=cluster_site.kubeconfig))
    core.create_namespaced_resource_quota(cluster_site.shared_namespace, quota)
    try:
        with pytest.raises(WorkOrderError, match="exceeded quota: none"):
            world.run({}, output=None)
    finally:
        core.delete_namespaced_resource_quota("none", cluster_site.shared_namespace)
