"""A cluster of yours, in namespaces of these tests alone, which are deleted at their end.

    make test-cluster KUBECONFIG=~/.kube/config

    LLM_ASSETS_TEST_IMAGE, LLM_ASSETS_TEST_TRAIN_IMAGE, LLM_ASSETS_TEST_SERVE_IMAGE
        the images, as the cluster can pull them: of this checkout, for CPUs
    LLM_ASSETS_TEST_HOST
        an address of this machine that pods reach: the tests' bucket listens there

What the tests ask of a served version goes to its Service, so run them where those can be reached.
"""

import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from resources.artifact_store.store import ArtifactStore
from resources.kubernetes.cluster import Cluster
from resources.kubernetes.pods import PodSettings
from tests.buckets import BUCKET, Bucket, gcs_bucket

STORE_SECRET = "llm-assets-store"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def setting(name: str, default: str | None = None) -> str:
    if value := os.environ.get(name, default):
        return value
    pytest.fail(f"{name} is not set: tests/cluster/conftest.py says what it is.")


@dataclass(frozen=True, kw_only=True)
class AlteredCluster(Cluster):
    """A cluster whose containers of one name get a file of the tests: `put` is a path and its text."""

    into: str
    put: tuple[str, str]
    mode: int = 0o644

    def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        spec = manifest["spec"].get("template", {}).get("spec") if "spec" in manifest else None
        if spec is not None:
            name, namespace = f"{manifest['metadata']['name']}-put", manifest["metadata"]["namespace"]
            put = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": namespace},
            }
            super().apply({**put, "data": {"file": self.put[1]}})
            spec["volumes"].append({"name": "put", "configMap": {"name": name, "defaultMode": self.mode}})
            [container] = [each for each in spec["containers"] if each["name"] == self.into]
            container["volumeMounts"].append({"name": "put", "mountPath": self.put[0], "subPath": "file"})
        return super().apply(manifest)


@dataclass(frozen=True, kw_only=True)
class ClusterSite:
    """The cluster, and a tenant that only these tests have."""

    kubeconfig: str
    tenant: str
    bucket: Bucket
    objects: Path
    cluster: Cluster = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cluster", Cluster(kubeconfig=self.kubeconfig))

    @property
    def shared_namespace(self) -> str:
        return f"{self.tenant}-shared"

    def pods(self, place: str) -> PodSettings:
        return PodSettings(
            platform_image=setting("LLM_ASSETS_TEST_IMAGE", "llm-assets:test"),
            engine_images={
                "train": setting("LLM_ASSETS_TEST_TRAIN_IMAGE", "llm-assets-train:test"),
                "serve": setting("LLM_ASSETS_TEST_SERVE_IMAGE", "llm-assets-serve:test"),
            },
            store_url=f"gs://{BUCKET}/{place}",
            store_secret=STORE_SECRET,
            device="cpu",
            memory_bytes=4 * 2**30,
        )

    def store(self, place: str, cache: Path) -> ArtifactStore:
        """As this process reaches it."""
        return ArtifactStore(url=f"gs://{BUCKET}/{place}", cache=str(cache), cache_limit_bytes=2**30)


@pytest.fixture(scope="session")
def cluster_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterSite]:
    folder = tmp_path_factory.mktemp("gcs")
    tenant = f"llm-assets-test-{secrets.token_hex(3)}"
    host = setting("LLM_ASSETS_TEST_HOST")
    with gcs_bucket(folder, host=host) as bucket, pytest.MonkeyPatch.context() as patched:
        for name, value in bucket.environment.items():
            patched.setenv(name, value)
        site = ClusterSite(
            kubeconfig=setting("KUBECONFIG"), tenant=tenant, bucket=bucket, objects=folder / BUCKET
        )
        with namespaces(site):
            yield site


def namespaces(site: ClusterSite) -> Any:
    """As a tenant's are, with the way to the bucket."""
    from contextlib import contextmanager

    from kubernetes import client, config

    core = client.CoreV1Api(config.new_client_from_config(config_file=site.kubeconfig))

    @contextmanager
    def made() -> Iterator[None]:
        names = [f"{site.tenant}-training", f"{site.tenant}-inference", site.shared_namespace]
        try:
            for name in names:
                core.create_namespace({"metadata": {"name": name, "labels": RESTRICTED}})
                secret = {"apiVersion": "v1", "kind": "Secret", "stringData": dict(site.bucket.environment)}
                site.cluster.apply({**secret, "metadata": {"name": STORE_SECRET, "namespace": name}})
            yield
        finally:
            for name in names:
                core.delete_namespace(name)

    return made()
