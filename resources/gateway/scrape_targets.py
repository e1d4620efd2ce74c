"""Which vLLM servers Prometheus scrapes, in the form of its file-based discovery (`file_sd_configs`).

vLLM's own /metrics needs no key: its `--api-key` guards only what lies below /v1. Every server is a group of
its own, because its labels are: `tenant`, `model`, `version`, `deployment`.
"""

import json
from collections.abc import Iterable

from resources.deployment_state import Deployment, LiveServer


def scrape_targets(deployments: Iterable[Deployment]) -> str:
    """The text of the file: every server that should be live, in a stable order."""
    servers = [live for each in deployments if not each.stopped for live in each.servers]
    groups = [_group(live) for live in sorted(servers, key=lambda live: live.server)]
    return json.dumps(groups, indent=1) + "\n"


def _group(live: LiveServer) -> dict[str, object]:
    serving = live.serving
    labels = {
        "tenant": serving.tenant,
        "model": serving.model,
        "version": serving.version,
        "deployment": live.server,
    }
    return {"targets": [live.address.removeprefix("http://")], "labels": labels}
