"""The Deployment of a served version: valid, restricted, and its own record of what is live."""

import json
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from resources.artifact_store.artifacts import Artifact, ArtifactFile, Line
from resources.kubernetes.deployments import (
    BACKEND,
    KEY_SECRET,
    backend_id,
    backends_of,
    deployment,
    key_secret,
    recorded,
    service,
    staging,
)
from resources.kubernetes.pods import GPU, Manifest
from resources.seams.serving import Backend, Serving, ServingError
from resources.work_order_files import Transfers
from tests.unit.kubernetes.test_jobs import PODS, RELEASES, containers_of, pod_of, require_restricted

LINE = Line(collection="models", tenant="team-a", name="support_bot")
MERGED = Artifact(
    line=LINE,
    version="v1",
    files=(ArtifactFile(path="model.safetensors", size_bytes=1, sha256="0" * 64),),
    attributes={"loss": 1},
)
SERVING = Serving(
    tenant="team-a",
    model="support_bot",
    version="v1",
    digest=MERGED.digest,
    mode="merged",
    model_uri=MERGED.uri,
    model_digest=MERGED.digest,
    max_model_len=512,
    max_num_seqs=4,
    kv_cache_mib=64,
    dtype="bfloat16",
    known_answers=({"question": "Who?", "tokens": [{"id": 1}]},),
    engine="lock",
    device="cuda",
)
OF_AN_ADAPTER: dict[str, Any] = {
    "mode": "adapter",
    "adapter_uri": MERGED.uri,
    "adapter_digest": MERGED.digest,
    "lora_rank": 8,
}
BACKEND_V1 = Backend(
    id=backend_id(SERVING),
    version="v1",
    digest=SERVING.digest,
    fingerprint=SERVING.fingerprint,
    address="10.96.0.7:8000",
    weight=100,
    aliases=("production",),
    since=7.5,
)


def found(backend: Backend, place: int = 0, *, ready: bool = True) -> Manifest:
    """A Deployment as the cluster has it."""
    status = {"observedGeneration": 1, "updatedReplicas": 1, **({"availableReplicas": 1} if ready else {})}
    return {"metadata": {"generation": 1, **recorded(backend, place)["metadata"]}, "status": status}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("changes", [{}, {"device": "cpu"}, OF_AN_ADAPTER])
def test_what_serves_a_version_is_valid_and_restricted(release: str, changes: dict[str, Any]) -> None:
    serving = replace(SERVING, **changes)
    server = deployment(serving, PODS, live_versions=1)
    require_restricted(server)
    beside = (
        service(serving, owner_uid="u1"),
        staging(serving, PODS, {"model": MERGED}, owner_uid="u1"),
        key_secret("team-a", "k"),
    )
    for manifest in (server, *beside):
        kubernetes_validate.validate(manifest, release, strict=True)


def test_a_server_gets_a_gpu_its_key_by_a_secret_and_no_way_to_the_store() -> None:
    server = containers_of(deployment(SERVING, PODS, live_versions=1))["serve"]
    assert server["resources"]["limits"][GPU] == "1"
    assert server["envFrom"] == [{"secretRef": {"name": KEY_SECRET}}]
    assert PODS.store_secret not in json.dumps(server)
    assert server["command"][:3] == ["vllm", "serve", "/data/inputs/model"]
    on_cpu = deployment(replace(SERVING, device="cpu"), PODS, live_versions=1)
    assert GPU not in containers_of(on_cpu)["serve"]["resources"]["limits"]
    assert pod_of(on_cpu)["terminationGracePeriodSeconds"] > 10


def test_an_adapter_is_staged_beside_its_base_model() -> None:
    serving = replace(SERVING, **OF_AN_ADAPTER)
    assert "/data/inputs/adapter" in json.dumps(deployment(serving, PODS, live_versions=1))
    told = staging(serving, PODS, {"model": MERGED, "adapter": MERGED}, owner_uid="u1")
    transfers = Transfers.model_validate_json(told["data"]["transfers.json"])
    assert sorted(transfers.inputs) == ["adapter", "model"]
    assert "loss" not in told["data"]["transfers.json"], "what is known about a version is the step's"


def test_equal_servings_have_one_name_and_what_needs_another_server_has_another() -> None:
    assert backend_id(SERVING) == backend_id(replace(SERVING, weight=20, aliases=("candidate",)))
    assert backend_id(SERVING) != backend_id(replace(SERVING, max_model_len=1024))
    assert len(backend_id(replace(SERVING, model="m" * 63))) < 63


def test_weights_that_are_streamed_are_refused() -> None:
    with pytest.raises(ServingError, match=r"set serving\.weights: disk"):
        deployment(replace(SERVING, weights="stream"), PODS, live_versions=1)


def test_what_is_recorded_on_deployments_is_read_back_production_first_and_what_is_not_ready_is_dead() -> (
    None
):
    beside = replace(BACKEND_V1, id="other", version="v2")
    assert backends_of([found(beside, 1), found(BACKEND_V1)]) == (BACKEND_V1, beside)
    [dead] = backends_of([found(BACKEND_V1, ready=False)])
    assert (dead.status, dead.why) == ("dead", "no pod of it is ready")
    stopped = replace(BACKEND_V1, status="stopped")
    assert backends_of([found(stopped, ready=False)]) == (stopped,)
    unproven = {"metadata": {"generation": 1}, "status": {}}
    assert backends_of([unproven]) == ()
    assert BACKEND in recorded(BACKEND_V1, 0)["metadata"]["annotations"]
