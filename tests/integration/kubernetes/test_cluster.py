"""What is asked of a cluster's API, and what is said where it refuses."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.kubernetes import cluster as clusters
from resources.kubernetes.cluster import FIELD_MANAGER, Cluster, KubernetesError
from tests.servers.kubernetes_stand_in import KubernetesStandIn, kubernetes_stand_in

Api = tuple[KubernetesStandIn, Cluster]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with kubernetes_stand_in(tmp_path) as found:
        yield found


def pod(name: str, **labels: str) -> dict[str, object]:
    metadata = {"name": name, "namespace": "team-a", "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


def test_what_is_applied_is_listed_by_its_labels_until_it_is_deleted(api: Api) -> None:
    server, cluster = api
    cluster.apply(pod("one", model="a"))
    cluster.apply(pod("two", model="b"))
    assert f"fieldManager={FIELD_MANAGER}&force=true" in server.asked[0]
    assert [each["metadata"]["name"] for each in cluster.find("Pod", "team-a", labelSelector="model=b")] == [
        "two"
    ]
    assert len(cluster.find_everywhere("Pod")) == 2
    assert cluster.find("Pod", "team-b") == []
    for _ in range(2):
        cluster.delete("Pod", "team-a", "one")
    assert cluster.get("Pod", "team-a", "one") is None


def test_what_the_cluster_refuses_is_raised_with_its_reason(api: Api) -> None:
    server, cluster = api
    path = "/api/v1/namespaces/team-a/pods/one"
    server.refused[path] = (403, 'pods "one" is forbidden: violates PodSecurity "restricted:latest"')
    with pytest.raises(
        KubernetesError, match=r"refused PATCH .*pods/one with HTTP 403: .*violates PodSecurity"
    ):
        cluster.apply(pod("one"))
    server.refused[path] = (500, "etcd is gone")
    with pytest.raises(KubernetesError, match="HTTP 500: etcd is gone"):
        cluster.get("Pod", "team-a", "one")


def test_the_log_of_a_container_that_has_not_begun_is_none(api: Api) -> None:
    server, cluster = api
    path = "/api/v1/namespaces/team-a/pods/one/log"
    server.refused[path] = (400, "container is waiting to start")
    assert cluster.log("team-a", "one", "send") is None
    server.refused[path] = (500, "no route to the kubelet")
    with pytest.raises(KubernetesError, match="no route to the kubelet"):
        cluster.log("team-a", "one", "send")


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "CONNECT_RETRIES", 0)
    with kubernetes_stand_in(tmp_path) as (server, cluster):
        address = f"127.0.0.1:{server.server_port}"
    with pytest.raises(KubernetesError, match=f"http://{address} cannot be reached"):
        cluster.get("Pod", "team-a", "one")
    with pytest.raises(KubernetesError, match="No cluster is known from"):
        Cluster(kubeconfig=str(tmp_path / "absent")).find("Pod", "team-a")
