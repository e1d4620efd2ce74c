"""The contract of the serving seam on a real cluster, with a stand-in for vLLM put into the image."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.artifact_store.store import ArtifactStore
from resources.kubernetes.deployments import inference_namespace
from resources.kubernetes.pods import MODEL_LABEL
from resources.kubernetes.serving import KubernetesServing
from resources.seams.serving import Backend
from resources.vllm.client import VllmClient
from tests.cluster.conftest import AlteredCluster, ClusterSite
from tests.contract import test_serving as contract
from tests.contract.serving_sites import Site
from tests.contract.test_serving import (
    test_a_deploy_gives_a_route_whose_backends_say_what_they_serve,
    test_an_old_backend_answers_until_the_new_route_was_published_and_is_then_gone,
    test_one_that_answers_otherwise_is_in_no_route_and_what_was_live_goes_on,
    test_versions_share_the_requests_and_production_comes_first,
    test_what_is_live_already_stays_as_it_is_and_is_published_again,
    test_what_is_stopped_has_no_route_and_can_be_deployed_again,
    test_where_the_gateway_does_not_take_the_route_nothing_ends,
)
from tests.integration.serving import conftest as stand_ins
from tests.integration.serving.conftest import (
    MODEL,
    QUESTION,
    STAND_IN,
    MakeServing,
    known_answer,
    make_serving,
)

pytestmark = pytest.mark.cluster

__all__ = [
    "make_serving",
    "test_a_deploy_gives_a_route_whose_backends_say_what_they_serve",
    "test_an_old_backend_answers_until_the_new_route_was_published_and_is_then_gone",
    "test_one_that_answers_otherwise_is_in_no_route_and_what_was_live_goes_on",
    "test_versions_share_the_requests_and_production_comes_first",
    "test_what_is_live_already_stays_as_it_is_and_is_published_again",
    "test_what_is_stopped_has_no_route_and_can_be_deployed_again",
    "test_where_the_gateway_does_not_take_the_route_nothing_ends",
]
VLLM_PATH = "/usr/local/bin/vllm"
VLLM = f"#!/usr/bin/env python\n{STAND_IN.read_text()}"


@pytest.fixture
def store(cluster_site: ClusterSite, tmp_path: Path) -> ArtifactStore:
    return cluster_site.store(tmp_path.name, tmp_path / "cache")


@pytest.fixture
def site(
    cluster_site: ClusterSite,
    store: ArtifactStore,
    make_serving: MakeServing,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    tenant = cluster_site.tenant
    for module in (contract, stand_ins):
        monkeypatch.setattr(module, "TENANT", tenant)
    cluster = AlteredCluster(
        kubeconfig=cluster_site.kubeconfig, into="serve", put=(VLLM_PATH, VLLM), mode=0o755
    )
    pods = cluster_site.pods(tmp_path.name)
    serving = KubernetesServing(cluster=cluster, pods=pods, store=store)

    def digest_of(backend: Backend) -> str:
        assert cluster.get("Deployment", inference_namespace(tenant), backend.id) is not None
        with VllmClient(backend.address, serving.route(tenant, MODEL).api_key) as client:
            return str(client.chat(MODEL, [{"role": "user", "content": QUESTION}])["system_fingerprint"])

    yield Site(
        serving=serving,
        version=make_serving,
        wrong=lambda label: make_serving(label, known_answers=(known_answer(f"not {label}"),)),
        digest_of=digest_of,
    )
    for found in cluster.find("Deployment", inference_namespace(tenant), labelSelector=MODEL_LABEL):
        cluster.delete("Deployment", inference_namespace(tenant), found["metadata"]["name"])
