"""The gateway of this machine: one Envoy, told first where the servers are, then that requests go to them.

`xds/clusters.json` is Envoy's and `routes.jsonl` the filter's. A route never names a server that Envoy does
not know yet, and an endpoint goes only when no route names it any more and Envoy's one worker has sent on
what it decided before. Then its connections to that server only become fewer: when there is none, no request
is under way to it (`VllmServers.asked`). Whoever publishes takes turns with the others; killed in between, it
leaves an endpoint that nobody is sent to, or the old route with its old server still running, and the next
deploy or start of the stack finishes the work.
"""

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import filelock

from resources.durable_files import replace_json
from resources.gateway.cluster_file import ClusterFile
from resources.gateway.envoy import address_of, running_gateway
from resources.gateway.envoy_admin import EnvoyAdmin
from resources.gateway.envoy_upstream import Owner
from resources.gateway.errors import GatewayError
from resources.gateway.journals import Journal
from resources.gateway.route_lines import route_line
from resources.gateway.scrape_targets import SCRAPE_TARGETS, scrape_targets
from resources.seams.gateway import Counting
from resources.seams.serving import Route
from resources.waiting import WaitError, wait_until

FOLDER = "gateway"
ROUTES = "routes.jsonl"
APPLIED_S = 30
ANSWER_S = 5
TURN_S = 60


@dataclass(frozen=True, kw_only=True)
class LocalGateway:
    """The gateway of the installation in `home`. `applied_s`: how long one that runs has to take a change."""

    home: Path
    applied_s: float = APPLIED_S

    @property
    def folder(self) -> Path:
        return self.home / FOLDER

    @property
    def _servers(self) -> ClusterFile:
        return ClusterFile(self.folder / "xds" / "clusters.json")

    @property
    def _routes(self) -> Journal:
        return Journal(self.folder / ROUTES)

    def address_of(self, tenant: str) -> str | None:
        running = running_gateway(self.home)
        return address_of(running.attributes["url"], tenant) if running else None

    def publish(self, route: Route) -> Counting:
        owner, coming = (route.tenant, route.model), _addresses(route)
        with self._turn():
            before = self._servers.listening().get(owner, {})
            counting = self._point(owner, before | coming)
            self._tell(route_line(route))
            self._wait_sent_on()
            return self._point(owner, coming) if before.keys() - coming.keys() else counting

    def _point(self, owner: Owner, addresses: dict[str, str]) -> Counting:
        version = self._servers.change(lambda known: {**known, owner: addresses})
        return self._wait_applied(version, owner[0])

    def withdraw(self, tenant: str, model: str) -> Counting:
        return self.publish(Route(tenant=tenant, model=model))

    def publish_all(self, routes: Iterable[Route]) -> Counting:
        every = list(routes)
        listening = {(route.tenant, route.model): _addresses(route) for route in every}
        with self._turn():
            counting = self._wait_applied(self._servers.change(lambda _known: listening), "every tenant")
            self._routes.compact(lambda _events: [route_line(route) for route in every])
        return counting

    def _wait_applied(self, version: str, whose: str) -> Counting:
        if running_gateway(self.home) is None:
            return "no gateway runs"
        admin = EnvoyAdmin(folder=self.folder)
        try:
            wait_until(
                lambda: _taken(admin) == version,
                what=f"the gateway's list of servers with those of {whose}",
                timeout_s=self.applied_s,
                every_s=0.01,
            )
        except WaitError as fault:
            raise GatewayError(
                f"{fault} What was live goes on. The gateway's log is {self.folder / 'envoy.log'}; "
                "`llm-assets up` starts it anew."
            ) from fault
        return "counts"

    def _wait_sent_on(self) -> None:
        """Waits until Envoy's worker has sent on every request that it decided by an earlier route.

        It decides and sends in one step, so whatever it answers to a connection that was made after the route
        was written (a refusal too) comes after that.
        """
        gateway = running_gateway(self.home)
        if gateway is None:
            return
        try:
            wait_until(
                lambda: running_gateway(self.home) is None or _answers(gateway.attributes["url"]),
                what="an answer of the gateway",
                timeout_s=self.applied_s,
                every_s=0.05,
            )
        except WaitError as fault:
            raise GatewayError(
                f"{fault} Requests go to the new servers and the old ones go on. The gateway's log is "
                f"{self.folder / 'envoy.log'}; `llm-assets up` starts it again."
            ) from fault

    def _tell(self, line: Mapping[str, Any]) -> None:
        """Appends the line unless it is what holds already."""
        known = None
        for event in self._routes.events():
            if (event["tenant"], event["model"]) == (line["tenant"], line["model"]):
                known = event
        if known != line:
            self._routes.append(line)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = filelock.FileLock(self.folder / ".publishing.lock")
        try:
            lock.acquire(timeout=TURN_S)
        except filelock.Timeout as fault:
            raise GatewayError(
                f"Another process has held {lock.lock_file} for over {TURN_S} s. "
                "End it (`fuser` names it), then try again."
            ) from fault
        try:
            yield
            self._tell_prometheus()
        finally:
            lock.release()

    def _tell_prometheus(self) -> None:
        """Its own servers' metrics are scraped as long as a route names them."""
        path = self.home / SCRAPE_TARGETS
        targets = scrape_targets(self._routes.events(), self._servers.listening())
        if not path.exists() or json.loads(path.read_text()) != targets:
            replace_json(path, targets)


def _addresses(route: Route) -> dict[str, str]:
    return {each.id: each.address for each in route.backends if each.status == "live"}


def _taken(admin: EnvoyAdmin) -> str | None:
    """Which version Envoy goes by; None while it does not answer, as in its first moments."""
    try:
        return admin.clusters_version()
    except GatewayError:
        return None


def _answers(url: str) -> bool:
    """Whether the listener says anything at all, or closes: it is its worker that does."""
    place = urlsplit(url)
    assert place.hostname is not None
    assert place.port is not None
    try:
        with socket.create_connection((place.hostname, place.port), timeout=ANSWER_S) as asked:
            asked.sendall(b"GET /healthz HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")
            asked.recv(1)
    except ConnectionResetError:
        return True
    except OSError:
        return False
    return True
