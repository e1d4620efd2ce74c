"""A served version as a Deployment and a Service: pure functions of the seam's `Serving`.

A pod is ready once vLLM says that it is healthy; whether the right model answers, the platform asks. What is
live is written on the Deployments (`BACKEND`) once the route to them counts: there is no other record.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from resources.artifact_store.artifacts import Artifact
from resources.kubernetes.jobs import STAGE, files_command
from resources.kubernetes.pods import (
    INPUTS,
    MANAGED_BY,
    MODEL_LABEL,
    ORDER,
    TENANT_LABEL,
    TRANSFERS,
    Manifest,
    PodSettings,
    engine_container,
    platform_container,
    pod_spec,
    told_volume,
)
from resources.seams.serving import Backend, Serving, ServingError
from resources.vllm.program import Weights, engine_environment, serve_command
from resources.work_order_files import Transfers

PORT = 8000
BACKEND_LABEL = "llm-assets/backend"
BACKEND = "llm-assets/backend"  # the annotation
KEY_SECRET = "llm-assets-serving-key"  # noqa: S105  # the name of one
KEY = "VLLM_API_KEY"
START_TIMEOUT_S = 900
DRAIN_S = 10
CORES = 2  # that a server without a GPU computes with


def inference_namespace(tenant: str) -> str:
    return f"{tenant}-inference"


def backend_id(serving: Serving) -> str:
    """The name of its objects: another one for whatever a running server has to be replaced for."""
    model = serving.model.replace("_", "-")[:40].rstrip("-")
    return f"{model}-{serving.fingerprint.removeprefix('sha256:')[:10]}"


def deployment(serving: Serving, pods: PodSettings, *, live_versions: int) -> Manifest:
    """The server of one version.

    Args:
        live_versions: How many versions of the model are to be live at once.

    Raises:
        ServingError: It is to be streamed, which is not done here yet, or vLLM does not serve its adapter.
    """
    if serving.weights == "stream":
        raise ServingError(
            f"{serving.name}: a cluster serves weights from a disk; set serving.weights: disk."
        )
    labels = _labels(serving)
    adapter = str(INPUTS / "adapter") if serving.adapter_uri else None
    healthy = {"httpGet": {"path": "/health", "port": PORT}, "timeoutSeconds": 5}
    server = engine_container(
        pods,
        "serve",
        serve_command(
            serving,
            Weights(model=str(INPUTS / "model"), adapter=adapter),
            listen=("--host", "0.0.0.0", "--port", str(PORT)),  # noqa: S104  # of the pod
            executable="vllm",
            live_versions=live_versions,
        ),
        engine_environment(serving, cores=CORES),
        gpus=1 if serving.device == "cuda" else 0,
        ports=[{"name": "http", "containerPort": PORT}],
        envFrom=[{"secretRef": {"name": KEY_SECRET}}],
        startupProbe={**healthy, "periodSeconds": 2, "failureThreshold": START_TIMEOUT_S // 2},
        readinessProbe={**healthy, "periodSeconds": 2, "failureThreshold": 2},
        livenessProbe={**healthy, "periodSeconds": 10, "failureThreshold": 6},
        lifecycle={"preStop": {"sleep": {"seconds": DRAIN_S}}},  # until nobody sends it requests any more
    )
    spec = pod_spec(
        [server],
        [platform_container(pods, STAGE, files_command("stage"))],
        terminationGracePeriodSeconds=DRAIN_S + 60,
        volumes=[told_volume(backend_id(serving))],
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(serving),
        "spec": {
            "replicas": 1,
            "progressDeadlineSeconds": START_TIMEOUT_S,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": {BACKEND_LABEL: labels[BACKEND_LABEL]}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def service(serving: Serving, *, owner_uid: str) -> Manifest:
    """The address that a version keeps while its pods come and go. It goes with its Deployment."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**_metadata(serving), "ownerReferences": [_owner(serving, owner_uid)]},
        "spec": {
            "selector": {BACKEND_LABEL: backend_id(serving)},
            "ports": [{"name": "http", "port": PORT, "targetPort": "http"}],
        },
    }


def staging(
    serving: Serving, pods: PodSettings, inputs: Mapping[str, Artifact], *, owner_uid: str
) -> Manifest:
    """What its pods stage, `model` and perhaps `adapter`, as a ConfigMap that goes with its Deployment."""
    transfers = Transfers(
        store_url=pods.store_url,
        inputs={name: replace(artifact, attributes={}) for name, artifact in inputs.items()},
        output=None,
        inputs_folder=INPUTS,
        order_folder=ORDER,
        listing="",
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {**_metadata(serving), "ownerReferences": [_owner(serving, owner_uid)]},
        "data": {TRANSFERS.name: transfers.model_dump_json()},
    }


def key_secret(tenant: str, key: str) -> Manifest:
    """What the tenant's servers ask for."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": KEY_SECRET, "namespace": inference_namespace(tenant), "labels": MANAGED_BY},
        "stringData": {KEY: key},
    }


def recorded(backend: Backend, place: int) -> Manifest:
    """The change that writes a backend on its Deployment; `place` 0 is production."""
    text = json.dumps({"place": place, **asdict(backend)}, sort_keys=True)
    return {"metadata": {"annotations": {BACKEND: text}}}


def backends_of(deployments: list[dict[str, Any]]) -> tuple[Backend, ...]:
    """What is recorded on these Deployments, production first, each as it is right now."""
    found = []
    for each in deployments:
        if text := each["metadata"].get("annotations", {}).get(BACKEND):
            values = json.loads(text)
            place = values.pop("place")
            backend = Backend(**{**values, "aliases": tuple(values["aliases"])})
            if backend.status == "live" and not available(each):
                backend = replace(backend, status="dead", why="no pod of it is ready")
            found.append((place, backend))
    return tuple(backend for _, backend in sorted(found, key=lambda each: each[0]))


def available(found: Mapping[str, Any]) -> bool:
    """Whether a Deployment, as it was last applied, has a ready pod."""
    status = found.get("status", {})
    current = status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
    return bool(current and status.get("updatedReplicas") and status.get("availableReplicas"))


def _labels(serving: Serving) -> dict[str, str]:
    return {
        **MANAGED_BY,
        TENANT_LABEL: serving.tenant,
        MODEL_LABEL: serving.model,
        BACKEND_LABEL: backend_id(serving),
    }


def _metadata(serving: Serving) -> Manifest:
    return {
        "name": backend_id(serving),
        "namespace": inference_namespace(serving.tenant),
        "labels": _labels(serving),
    }


def _owner(serving: Serving, uid: str) -> Manifest:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": backend_id(serving), "uid": uid}
