"""A work order as a Kubernetes Job, and what its pod says of how it stands. Pure functions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resources.engines.locks import EngineName
from resources.kubernetes.pods import (
    CONTEXT,
    MANAGED_BY,
    ORDER,
    TENANT_LABEL,
    TRANSFERS,
    Manifest,
    PodSettings,
    engine_container,
    platform_container,
    pod_spec,
    told_mount,
    told_volume,
)
from resources.seams.compute import Needs
from resources.work_order_files import OrderFolder, Transfers

SEND, STAGE = "send", "stage"
KEPT_S = 600  # a finished Job that nobody took away, because whoever asked died
# Runs the worker, says how it ended, and waits until what it made is sent: a Job that is complete is sent.
# A signal ends `wait`, not the worker, which is given it and waited for again.
CARRY_OUT = """
"$@" & worker=$!
trap 'kill -TERM $worker' TERM
wait $worker; status=$?
while kill -0 $worker 2>/dev/null; do wait $worker; status=$?; done
echo $status > "$ENDED"
if [ -n "$SENT" ]; then
  until [ -f "$SENT" ]; do sleep 0.2; done
  if [ -s "$SENT" ]; then echo "The output was not sent: $(cat "$SENT")"; exit 1; fi
fi
exit $status
"""
# Of a container that waits: these do not pass by themselves.
HOPELESS = ("ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError")
ASKED_AGAIN = ("ErrImagePull", "ImagePullBackOff")  # a registry may be away for a moment


@dataclass(frozen=True, kw_only=True)
class OrderJob:
    """One work order on the cluster.

    Attributes:
        tenant: Whose it is; None: the installation's own.
        bootstrap: The environment by which a worker finds its order and reports.
        sends: Whether it makes a version.
        timeout_s: How long it may take from its start.
    """

    name: str
    namespace: str
    tenant: str | None
    engine: EngineName
    worker: str
    needs: Needs
    bootstrap: Mapping[str, str]
    sends: bool
    timeout_s: int

    @property
    def labels(self) -> dict[str, str]:
        return MANAGED_BY | ({TENANT_LABEL: self.tenant} if self.tenant else {})

    @property
    def selector(self) -> str:
        """Of its pod."""
        return f"batch.kubernetes.io/job-name={self.name}"


def job(order: OrderJob, pods: PodSettings) -> Manifest:
    """Inputs are staged, the engine's container works, and what it makes is sent beside it."""
    folder = OrderFolder(root=ORDER)
    environment = {"ENDED": str(folder.ended), "SENT": str(folder.sent) if order.sends else ""}
    worker = ("python", "-m", f"llm_assets.workers.{order.worker}")
    engine = engine_container(
        pods,
        order.engine,
        ("sh", "-c", CARRY_OUT, "sh", *worker),
        {**order.bootstrap, **environment},
        memory_bytes=order.needs.memory_bytes,
        disk_bytes=order.needs.disk_bytes,
        gpus=order.needs.gpus,
        volumeMounts=[told_mount()],
    )
    beside = [platform_container(pods, STAGE, files_command("stage"))]
    if order.sends:
        beside.append(platform_container(pods, SEND, files_command("send"), restartPolicy="Always"))
    spec = pod_spec([engine], beside, restartPolicy="Never", volumes=[told_volume(order.name)])
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": order.name, "namespace": order.namespace, "labels": order.labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": order.timeout_s,
            "ttlSecondsAfterFinished": KEPT_S,
            "template": {"metadata": {"labels": order.labels}, "spec": spec},
        },
    }


def files_command(verb: str) -> tuple[str, ...]:
    """What a container of the platform's image does: see `resources/work_order_files.py`."""
    return ("python", "-m", "resources.work_order_files", verb, str(TRANSFERS))


def told(order: OrderJob, context: Mapping[str, Any], transfers: Transfers, *, job_uid: str) -> Manifest:
    """What the containers are told, as a ConfigMap that goes with its Job."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": order.name, "uid": job_uid}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": order.name,
            "namespace": order.namespace,
            "labels": order.labels,
            "ownerReferences": [owner],
        },
        "data": {CONTEXT.name: json.dumps(context), TRANSFERS.name: transfers.model_dump_json()},
    }


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a container or a Job came to its end, in Kubernetes' words; a Job that succeeded has no reason."""

    reason: str = ""
    exit_code: int = 0
    said: str = ""


def finished(found: Mapping[str, Any]) -> Ended | None:
    """How a Job ended; None while it has not."""
    for condition in found.get("status", {}).get("conditions", ()):
        if condition["status"] == "True" and condition["type"] == "Complete":
            return Ended()
        if condition["status"] == "True" and condition["type"] == "Failed":
            return Ended(reason=condition.get("reason", "Failed"), said=condition.get("message", ""))
    return None


def container_ended(pod: Mapping[str, Any], name: str) -> Ended | None:
    """How a container of a pod ended; None while it has not."""
    found = _statuses(pod).get(name, {}).get("state", {}).get("terminated")
    if found is None:
        return None
    said = found.get("message", "").strip()
    return Ended(reason=found.get("reason", ""), exit_code=found.get("exitCode", 0), said=said)


def waits_for(pod: Mapping[str, Any]) -> tuple[str, bool] | None:
    """Why a pod does not run yet, and whether waiting is in vain; None where nothing is in its way."""
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}", False
    for name, status in _statuses(pod).items():
        waiting = status.get("state", {}).get("waiting", {})
        reason, why = waiting.get("reason", ""), waiting.get("message", "")
        if reason in HOPELESS or reason in ASKED_AGAIN:
            return f"container {name}: {reason}: {why}", reason in HOPELESS
    return None


def started(pod: Mapping[str, Any], name: str) -> bool:
    """Whether a container of a pod has begun to run."""
    state = _statuses(pod).get(name, {}).get("state", {})
    return "running" in state or "terminated" in state


def _statuses(pod: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    status = pod.get("status", {})
    every = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return {each["name"]: each for each in every}
