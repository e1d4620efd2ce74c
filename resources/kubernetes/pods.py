"""What every pod of the platform has in common: pure functions of frozen values.

Pod Security `restricted` holds for all of them: no root, nothing writable but empty folders of the pod's
own, no token of the cluster. Credentials of the store reach the containers of the platform's image alone,
never an engine's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.engines.locks import Device, EngineName

USER = 10001  # of the images
DATA = Path("/data")
INPUTS, ORDER = DATA / "inputs", DATA / "order"
TOLD = Path("/told")  # what the containers are told, from a ConfigMap
CONTEXT, TRANSFERS = TOLD / "context.json", TOLD / "transfers.json"
GPU = "nvidia.com/gpu"
MANAGED_BY = {"app.kubernetes.io/managed-by": "llm-assets"}
MANAGED = ",".join(f"{name}={value}" for name, value in MANAGED_BY.items())  # a selector
TENANT_LABEL = "llm-assets/tenant"
MODEL_LABEL = "llm-assets/model"

Manifest = dict[str, Any]  # of an object, or a part of one, as Kubernetes reads it


@dataclass(frozen=True, kw_only=True)
class PodSettings:
    """What an installation says of its pods.

    Attributes:
        platform_image: Stages and sends.
        engine_images: What works and serves.
        store_url: The artifact store, as pods reach it.
        store_secret: The name of a Secret in each namespace; its keys are the environment variables by which
            the store's client finds its credentials.
        device: What the engines' images were built for.
        memory_bytes: How much memory an engine's container may take that does not say.
    """

    platform_image: str
    engine_images: Mapping[EngineName, str]
    store_url: str
    store_secret: str
    device: Device
    memory_bytes: int


def pod_spec(containers: Iterable[Manifest], init_containers: Iterable[Manifest], **more: Any) -> Manifest:
    """A pod whose containers share `/data`."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": list(init_containers),
        "containers": list(containers),
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
            *more.pop("volumes", ()),
        ],
        **more,
    }


def platform_container(pods: PodSettings, name: str, command: Iterable[str], **more: Any) -> Manifest:
    """A container that reads or writes the store, as it is told."""
    secret = {"secretRef": {"name": pods.store_secret}}
    return _container(
        pods.platform_image, name, command, {}, envFrom=[secret], volumeMounts=[told_mount()], **more
    )


def told_volume(config_map: str) -> Manifest:
    return {"name": "told", "configMap": {"name": config_map}}


def told_mount() -> Manifest:
    return {"name": "told", "mountPath": str(TOLD), "readOnly": True}


def engine_container(
    pods: PodSettings,
    engine: EngineName,
    command: Iterable[str],
    environment: Mapping[str, str],
    *,
    memory_bytes: int = 0,
    disk_bytes: int = 0,
    gpus: int = 0,
    **more: Any,
) -> Manifest:
    """A container of an engine: it sees no credential of the platform."""
    limits = {"memory": str(memory_bytes or pods.memory_bytes), **({GPU: str(gpus)} if gpus else {})}
    requests = {"memory": limits["memory"], **({"ephemeral-storage": str(disk_bytes)} if disk_bytes else {})}
    own = {
        "HOME": "/tmp",  # noqa: S108  # a folder of the pod's own
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": "/tmp/huggingface",  # noqa: S108
        "TOKENIZERS_PARALLELISM": "false",
        "DO_NOT_TRACK": "1",
        **environment,
    }
    image = pods.engine_images[engine]
    return _container(image, engine, command, own, resources={"limits": limits, "requests": requests}, **more)


def _container(
    image: str, name: str, command: Iterable[str], environment: Mapping[str, str], **more: Any
) -> Manifest:
    return {
        "name": name,
        "image": image,
        "command": list(command),
        "workingDir": str(DATA),
        "env": [{"name": key, "value": value} for key, value in sorted(environment.items())],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # The end of its log is in the pod's status, where it says why it ended.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "data", "mountPath": str(DATA)},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            *more.pop("volumeMounts", ()),
        ],
        **more,
    }
