"""The API of one Kubernetes cluster: objects as the plain JSON that its documentation shows.

The client library gives addresses, TLS and credentials; every verb here may be said twice. Writing is
server-side apply by one field manager. Not covered: watches; whoever waits asks again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from resources.errors import LlmAssetsError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

FIELD_MANAGER = "llm-assets"
REQUEST_TIMEOUT_S = 20
CONNECT_RETRIES = 6  # with growing pauses, together some 30 s: an API server that restarts
APPLY = "application/apply-patch+yaml"  # JSON is YAML
MERGE = "application/merge-patch+json"
PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Event": "/api/v1/namespaces/{}/events",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Service": "/api/v1/namespaces/{}/services",
}

Object = dict[str, Any]  # as Kubernetes writes it


class KubernetesError(LlmAssetsError):
    """The cluster refused what was asked of it, or cannot be reached."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster by a context of a kubeconfig file; without a file, the one that this process runs in."""

    kubeconfig: str | None = None
    context: str | None = None

    def apply(self, manifest: Mapping[str, Any]) -> Object:
        """Makes an object as the manifest says; fields that others manage and it does not name stay.

        Raises:
            KubernetesError: It is refused; the text has the cluster's reason.
        """
        of = manifest["metadata"]
        path = f"{_folder(manifest['kind'], of['namespace'])}/{of['name']}"
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return self._json("PATCH", path, query, body=manifest) or {}

    def merge(self, kind: str, namespace: str, name: str, change: Mapping[str, Any]) -> None:
        """Changes the fields that are named of an object that is there. Raises KubernetesError."""
        path = f"{_folder(kind, namespace)}/{name}"
        self._json("PATCH", path, {"fieldManager": FIELD_MANAGER}, body=change, content_type=MERGE)

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object; None where there is none. Raises KubernetesError."""
        return self._json("GET", f"{_folder(kind, namespace)}/{name}", {})

    def find(self, kind: str, namespace: str, **selectors: str) -> list[Object]:
        """The objects that a `labelSelector` or a `fieldSelector` takes. Raises KubernetesError."""
        return (self._json("GET", _folder(kind, namespace), selectors) or {}).get("items", [])

    def find_everywhere(self, kind: str, **selectors: str) -> list[Object]:
        """As `find`, of every namespace."""
        path = PATHS[kind].replace("/namespaces/{}", "")
        return (self._json("GET", path, selectors) or {}).get("items", [])

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Takes an object away with what it owns. What is gone already is fine. Raises KubernetesError."""
        query = {"propagationPolicy": "Background"}
        self._json("DELETE", f"{_folder(kind, namespace)}/{name}", query)

    def log(self, namespace: str, pod: str, container: str, **query: str) -> str | None:
        """What a container has said; None while there is nothing to read. Raises KubernetesError."""
        path = f"{_folder('Pod', namespace)}/{pod}/log"
        status, text = self._ask("GET", path, {"container": container, **query})
        if status in (400, 404):  # not started yet, or gone
            return None
        if status >= 300:
            raise _refused(f"GET {path}", status, text)
        return text

    def _json(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        content_type: str = APPLY,
    ) -> Object | None:
        status, text = self._ask(verb, path, query, body, content_type)
        if status == 404 and verb != "PATCH":
            return None
        if status >= 300:
            raise _refused(f"{verb} {path}", status, text)
        return json.loads(text)

    def _ask(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        content_type: str = APPLY,
    ) -> tuple[int, str]:
        import urllib3

        client = _client(self)
        headers = {"Accept": "application/json, */*", **({"Content-Type": content_type} if body else {})}
        client.update_params_for_auth(headers, [], ["BearerToken"])
        try:
            response = client.rest_client.pool_manager.request(
                verb,
                f"{client.configuration.host}{path}?{urlencode(query)}",
                body=json.dumps(body) if body else None,
                headers=headers,
                timeout=REQUEST_TIMEOUT_S,
                retries=urllib3.Retry(CONNECT_RETRIES, backoff_factor=0.5, allowed_methods=None),
            )
        except urllib3.exceptions.HTTPError as fault:
            raise KubernetesError(f"{client.configuration.host} cannot be reached: {fault}") from fault
        return response.status, response.data.decode(errors="replace")


@lru_cache(maxsize=8)
def _client(cluster: Cluster) -> "ApiClient":
    from kubernetes import client, config

    try:
        if cluster.kubeconfig is not None:
            return config.new_client_from_config(config_file=cluster.kubeconfig, context=cluster.context)
        settings = client.Configuration()
        config.load_incluster_config(client_configuration=settings)
        return client.ApiClient(settings)
    except config.ConfigException as fault:
        where = cluster.kubeconfig or "this pod"
        raise KubernetesError(f"No cluster is known from {where}: {fault}") from fault


def _folder(kind: str, namespace: str) -> str:
    return PATHS[kind].format(namespace)


def _refused(what: str, status: int, text: str) -> KubernetesError:
    try:
        reason = json.loads(text)["message"]
    except (ValueError, LookupError, TypeError):
        reason = text[:500]
    return KubernetesError(f"The cluster refused {what} with HTTP {status}: {reason}")
