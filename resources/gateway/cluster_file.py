"""The file that tells Envoy where the servers are, `xds/clusters.json`: replaced in one step.

One file for all, because each that Envoy follows costs one of the 128 inotify instances that a user has.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from resources.durable_files import replace_json
from resources.gateway.envoy_upstream import Listening, clusters, listening_in


@dataclass(frozen=True)
class ClusterFile:
    """Whoever changes it has the turn to do so."""

    path: Path

    def make(self) -> None:
        """Makes it where it is missing, because Envoy does not start without."""
        if not self.path.exists():
            self.change(lambda _nothing: {})

    def change(self, changed: Callable[[Listening], Listening]) -> str:
        """Writes it anew where it is different afterwards; its version."""
        before = self._read()
        after = clusters(changed(listening_in(before)), str(before.get("version_info", "")))
        if after != before:
            after["version_info"] = str(time.time_ns())
            replace_json(self.path, after)
        return str(after["version_info"])

    def listening(self) -> Listening:
        return listening_in(self._read())

    def _read(self) -> dict[str, object]:
        try:
            return dict(json.loads(self.path.read_text()))
        except FileNotFoundError:
            return {"resources": []}
