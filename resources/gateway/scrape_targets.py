"""Which vLLM servers Prometheus scrapes, in the form of its file-based discovery (`file_sd_configs`).

A target is the name of a server, which has no address of its own: prometheus.yml makes of it the path at the
gateway's metrics address. Every server is a group of its own, because its labels are: `tenant`, `model`,
`version`, `deployment`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from resources.gateway.envoy_upstream import Endpoint
from resources.json_values import Json

SCRAPE_TARGETS = "monitoring/vllm.json"
"""Below the installation's state folder; deployments/monitoring/prometheus.yml names it."""


def scrape_targets(routes: Iterable[Mapping[str, Any]], known: Iterable[Endpoint]) -> list[Json]:
    """A group for every server that a route names and that can be reached, in a stable order.

    Args:
        routes: Lines of `routes.jsonl`; a later one replaces an earlier one of its tenant and model.
        known: The servers in `xds/clusters.json`.
    """
    latest = {(line["tenant"], line["model"]): line for line in routes}
    backends = {each["deployment"]: each for line in latest.values() for each in line["backends"]}
    listening = sorted((each for each in known if each.deployment in backends), key=lambda e: e.deployment)
    return [_group(each, backends[each.deployment]["version"]) for each in listening]


def _group(endpoint: Endpoint, version: str) -> Json:
    labels = {
        "tenant": endpoint.tenant,
        "model": endpoint.model,
        "version": version,
        "deployment": endpoint.deployment,
    }
    return {"targets": [endpoint.deployment], "labels": labels}
