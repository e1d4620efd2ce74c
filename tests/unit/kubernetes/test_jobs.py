"""The Job of a work order: valid, restricted, and without a credential where an engine could read it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from resources.kubernetes.jobs import (
    SEND,
    STAGE,
    Ended,
    OrderJob,
    container_ended,
    finished,
    job,
    told,
    waits_for,
)
from resources.kubernetes.pods import GPU, INPUTS, ORDER, Manifest, PodSettings
from resources.seams.compute import Needs
from resources.work_order_files import Transfers

PODS = PodSettings(
    platform_image="registry/llm-assets:1",
    engine_images={"train": "registry/train:1", "serve": "registry/serve:1"},
    store_url="s3://models/store",
    store_secret="llm-assets-store",
    device="cuda",
    memory_bytes=8 * 2**30,
)
ORDER_JOB = OrderJob(
    name="train-1a2b",
    namespace="team-a-training",
    tenant="team-a",
    engine="train",
    worker="train",
    needs=Needs(gpus=2, memory_bytes=2**30, disk_bytes=2**31),
    bootstrap={"DAGSTER_PIPES_CONTEXT": "abc"},
    sends=True,
    timeout_s=3600,
)
RELEASES = ("1.35", "1.36", "1.37")


def pod_of(manifest: Manifest) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def containers_of(manifest: Manifest) -> dict[str, Mapping[str, Any]]:
    pod = pod_of(manifest)
    return {each["name"]: each for each in (*pod["initContainers"], *pod["containers"])}


def require_restricted(manifest: Manifest) -> None:
    """Pod Security's level `restricted`, and a root file system that cannot be written."""
    pod = pod_of(manifest)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    assert {next(iter(volume.keys() - {"name"})) for volume in pod["volumes"]} <= {"emptyDir", "configMap"}
    for container in containers_of(manifest).values():
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("sends", [True, False])
def test_a_job_is_valid_and_restricted(release: str, sends: bool) -> None:
    manifest = job(replace(ORDER_JOB, sends=sends), PODS)
    kubernetes_validate.validate(manifest, release, strict=True)
    require_restricted(manifest)


def test_only_containers_of_the_platforms_image_are_given_the_stores_credentials() -> None:
    containers = containers_of(job(ORDER_JOB, PODS))
    assert list(containers) == [STAGE, SEND, "train"]
    for name in (STAGE, SEND):
        assert containers[name]["image"] == PODS.platform_image
        assert containers[name]["envFrom"] == [{"secretRef": {"name": PODS.store_secret}}]
    engine = containers["train"]
    assert "envFrom" not in engine
    assert PODS.store_secret not in json.dumps(engine)
    assert containers[SEND]["restartPolicy"] == "Always", "it runs beside the engine"


def test_an_order_takes_what_it_needs_and_an_order_that_says_nothing_what_the_installation_gives() -> None:
    limits = containers_of(job(ORDER_JOB, PODS))["train"]["resources"]["limits"]
    assert limits == {"memory": str(2**30), GPU: "2"}
    unsaid = containers_of(job(replace(ORDER_JOB, needs=Needs()), PODS))["train"]["resources"]["limits"]
    assert unsaid == {"memory": str(PODS.memory_bytes)}


def test_an_order_that_makes_no_version_has_nothing_to_send() -> None:
    containers = containers_of(job(replace(ORDER_JOB, sends=False), PODS))
    assert SEND not in containers
    assert {"name": "SENT", "value": ""} in containers["train"]["env"]


def test_what_the_containers_are_told_goes_with_the_job() -> None:
    transfers = Transfers(
        store_url=PODS.store_url, inputs={}, output=None, inputs_folder=INPUTS, order_folder=ORDER, listing=""
    )
    manifest = told(ORDER_JOB, {"extras": {}}, transfers, job_uid="u1")
    kubernetes_validate.validate(manifest, RELEASES[-1], strict=True)
    assert manifest["metadata"]["ownerReferences"][0]["uid"] == "u1"
    assert Transfers.model_validate_json(manifest["data"]["transfers.json"]) == transfers


def test_a_job_has_ended_once_its_condition_says_so_and_not_when_that_was_only_decided() -> None:
    def with_condition(kind: str, **more: str) -> Manifest:
        return {"status": {"conditions": [{"type": kind, "status": "True", **more}]}}

    assert finished({"status": {}}) is None
    assert finished(with_condition("SuccessCriteriaMet")) is None
    assert finished(with_condition("FailureTarget")) is None
    assert finished(with_condition("Complete")) == Ended()
    failed = with_condition("Failed", reason="DeadlineExceeded", message="too slow")
    assert finished(failed) == Ended(reason="DeadlineExceeded", said="too slow")


def test_a_pod_that_waits_says_what_for_and_whether_that_can_pass() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}
    assert waits_for({"status": {"conditions": [condition]}}) == ("Unschedulable: no GPU", False)

    def waiting(reason: str) -> Manifest:
        status = {"name": "stage", "state": {"waiting": {"reason": reason, "message": "m"}}}
        return {"status": {"initContainerStatuses": [status]}}

    assert waits_for(waiting("PodInitializing")) is None
    assert waits_for(waiting("ImagePullBackOff")) == ("container stage: ImagePullBackOff: m", False)
    assert waits_for(waiting("ErrImageNeverPull")) == ("container stage: ErrImageNeverPull: m", True)


def test_a_container_that_ended_says_how() -> None:
    terminated = {"exitCode": 137, "reason": "OOMKilled", "message": "the end\n"}
    pod = {"status": {"containerStatuses": [{"name": "train", "state": {"terminated": terminated}}]}}
    assert container_ended(pod, "train") == Ended(reason="OOMKilled", exit_code=137, said="the end")
    assert container_ended(pod, "send") is None
