"""The files that tell Envoy where servers are: `xds/endpoints/<cluster>.json`, each replaced in one step."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from resources.gateway.envoy_upstream import Endpoint, endpoints, endpoints_in
from resources.gateway.files import replace_json
from resources.gateway.shards import CLUSTERS, cluster_of


@dataclass(frozen=True)
class EndpointFiles:
    """The files of all clusters, in one folder. Whoever changes them has the turn to do so."""

    folder: Path

    def make(self) -> None:
        """Makes those that are missing, because Envoy does not start without."""
        for cluster in CLUSTERS:
            if not self.file(cluster).exists():
                self._write(cluster, ())

    def change(self, changed: Callable[[list[Endpoint]], Iterable[Endpoint]]) -> Mapping[str, str]:
        """Writes anew what is different afterwards.

        Returns:
            The version of every cluster's file, by the cluster's name.
        """
        found = {cluster: self._read(cluster) for cluster in CLUSTERS}
        wanted: dict[str, list[Endpoint]] = defaultdict(list)
        for each in changed([endpoint for _, known in found.values() for endpoint in known]):
            wanted[cluster_of(each.deployment)].append(each)
        versions = {}
        for cluster, (version, known) in found.items():
            same = version and _same(known, wanted[cluster])
            versions[cluster] = version if same else self._write(cluster, wanted[cluster])
        return versions

    def all(self) -> tuple[Endpoint, ...]:
        return tuple(endpoint for cluster in CLUSTERS for endpoint in self._read(cluster)[1])

    def file(self, cluster: str) -> Path:
        return self.folder / f"{cluster}.json"

    def _read(self, cluster: str) -> tuple[str, tuple[Endpoint, ...]]:
        try:
            return endpoints_in(json.loads(self.file(cluster).read_text()))
        except FileNotFoundError:
            return "", ()

    def _write(self, cluster: str, known: Iterable[Endpoint]) -> str:
        version = str(time.time_ns())
        replace_json(self.file(cluster), endpoints(cluster, known, version))
        return version


def _same(some: Iterable[Endpoint], others: Iterable[Endpoint]) -> bool:
    return frozenset(some) == frozenset(others)
