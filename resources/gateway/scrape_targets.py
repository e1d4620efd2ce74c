"""Which vLLM servers Prometheus scrapes, in the form of its file-based discovery (`file_sd_configs`).

A target is the name of a server, which has no address of its own: prometheus.yml makes of it the path at the
gateway's metrics address. Every server is a group of its own, because its labels are: `tenant`, `model`,
`version`, `deployment`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from resources.gateway.envoy_upstream import Listening
from resources.json_values import Json

SCRAPE_TARGETS = "monitoring/vllm.json"
"""Below the installation's state folder; deployments/monitoring/prometheus.yml names it."""


def scrape_targets(routes: Iterable[Mapping[str, Any]], known: Listening) -> list[Json]:
    """A group for every server that a route names and that can be reached, in a stable order.

    Args:
        routes: Lines of `routes.jsonl`; a later one replaces an earlier one of its tenant and model.
        known: The servers in `xds/clusters.json`.
    """
    latest = {(line["tenant"], line["model"]): line for line in routes}
    groups = [
        _group(tenant, model, each)
        for (tenant, model), line in latest.items()
        for each in line["backends"]
        if each["deployment"] in known.get((tenant, model), {})
    ]
    return sorted(groups, key=lambda group: str(group["targets"]))


def _group(tenant: str, model: str, backend: Mapping[str, Any]) -> Json:
    server = backend["deployment"]
    labels = {"tenant": tenant, "model": model, "version": backend["version"], "deployment": server}
    return {"targets": [server], "labels": labels}
