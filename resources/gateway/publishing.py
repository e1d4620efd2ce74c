"""What is live, told to the gateway: first where its servers are, then that requests go to them.

`xds/clusters.json` is Envoy's and `routes.jsonl` the filter's. A route never names a server that Envoy does
not know yet, and an endpoint goes only when no route names it any more and Envoy's one worker has sent on
what it decided before. Then its connections to that server only become fewer: when there is none, no request
is under way to it (`VllmServers.asked`). Whoever publishes takes turns with the others; killed in between, it
leaves an endpoint that nobody is sent to, or the old route with its old server still running, and the next
deploy or start of the stack finishes the work.
"""

import json
import socket
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import filelock

from resources.durable_files import replace_json
from resources.gateway.cluster_file import ClusterFile
from resources.gateway.envoy import running_gateway
from resources.gateway.envoy_admin import EnvoyAdmin
from resources.gateway.envoy_upstream import Endpoint
from resources.gateway.errors import GatewayError
from resources.gateway.journals import Journal
from resources.gateway.scrape_targets import SCRAPE_TARGETS, scrape_targets
from resources.json_values import Json
from resources.serving.deployment_state import Deployment, LiveServer
from resources.waiting import WaitError, wait_until

FOLDER = "gateway"
ROUTES = "routes.jsonl"
PRODUCTION = "production"
APPLIED_S = 30
ANSWER_S = 5
LABEL_TIME = "%Y%m%dT%H%M%S.%fZ"
TURN_S = 60


@dataclass(frozen=True, kw_only=True)
class Live:
    """A deployment with the key that its servers ask for. `dead` are the servers of it that do not run."""

    deployment: Deployment
    api_key: str
    dead: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Tells the gateway of the installation in `home`, whether it runs or not.

    `applied_s`: how long one that runs has to take a change.
    """

    home: Path
    applied_s: float = APPLIED_S

    @property
    def folder(self) -> Path:
        return self.home / FOLDER

    @property
    def _servers(self) -> ClusterFile:
        return ClusterFile(self.folder / "xds" / "clusters.json")

    @property
    def routes(self) -> Journal:
        return Journal(self.folder / ROUTES)

    def publish(self, live: Live) -> None:
        """From its return on, no request is sent to any other server. Those before stay known.

        Raises:
            GatewayError: Envoy runs and did not take the servers. Requests go where they went.
        """
        coming = _endpoints_of(live)
        names = {each.deployment for each in coming}
        with self._turn():
            version = self._servers.change(
                lambda known: [e for e in known if e.deployment not in names] + coming
            )
            self._wait_applied(version, live.deployment.route.tenant)
            self._route(route_line(live))
            self._wait_sent_on()

    def retire(self, tenant: str, model: str, *, kept: Set[str]) -> None:
        """Forgets the servers of a model but those that are kept. No route may name them any more.

        From its return on Envoy begins no request to them, and lets go of each connection as it ends.

        Raises:
            GatewayError: Envoy runs and did not take that.
        """
        with self._turn():
            version = self._servers.change(lambda known: [e for e in known if _stays(e, tenant, model, kept)])
            self._wait_applied(version, tenant)

    def withdraw(self, tenant: str, model: str) -> None:
        """From its return on the model has nothing live: its requests are answered 503."""
        with self._turn():
            self._route({"tenant": tenant, "model": model, "key": None, "backends": []})
            self._servers.change(lambda known: [e for e in known if _stays(e, tenant, model, frozenset())])

    def publish_all(self, lives: Iterable[Live], stopped: Iterable[tuple[str, str]]) -> None:
        """Writes everything anew and leaves out what was, as at the start of the stack.

        Args:
            stopped: Tenant and model of the deployments that have nothing live.
        """
        everything = list(lives)
        listening = [each for live in everything for each in _endpoints_of(live)]
        lines = [route_line(live) for live in everything]
        lines += [
            {"tenant": tenant, "model": model, "key": None, "backends": []} for tenant, model in stopped
        ]
        with self._turn():
            self._wait_applied(self._servers.change(lambda _known: listening), "every tenant")
            self.routes.compact(lambda _events: lines)

    def _wait_applied(self, version: str, whose: str) -> None:
        if running_gateway(self.home) is None:
            return
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

    def _route(self, line: Json) -> None:
        """Appends the line unless it is what holds already."""
        known = None
        for event in self.routes.events():
            if (event["tenant"], event["model"]) == (line["tenant"], line["model"]):
                known = event
        if known != line:
            self.routes.append(line)

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
        targets = scrape_targets(self.routes.events(), self._servers.all())
        if not path.exists() or json.loads(path.read_text()) != targets:
            replace_json(path, targets)


def route_line(live: Live) -> Json:
    """The line of `routes.jsonl` that says where a model's requests go, production first.

    A dead server gets none of them; that it is there says that its version will be back.
    """
    first = live.deployment.servers[0].serving
    return {
        "tenant": first.tenant,
        "model": first.model,
        "key": live.api_key,
        "backends": [
            _backend(at, server) | ({"dead": True} if server.server in live.dead else {})
            for at, server in enumerate(live.deployment.servers)
        ],
    }


def _backend(at: int, server: LiveServer) -> Json:
    names = [name for name in server.aliases if name != PRODUCTION]
    return {
        "deployment": server.server,
        "version": server.serving.version,
        "digest": server.serving.digest,
        "weight": server.weight,
        "names": [PRODUCTION, *names] if at == 0 else names,
        "created": int(_created(server)),
    }


def _created(server: LiveServer) -> float:
    """When the version was made, in epoch seconds, as its label says; else when it went live."""
    try:
        made = datetime.strptime(server.serving.version.partition("-")[0], LABEL_TIME)
    except ValueError:
        return server.since
    return made.replace(tzinfo=UTC).timestamp()


def _endpoints_of(live: Live) -> list[Endpoint]:
    return [_endpoint(server) for server in live.deployment.servers if server.server not in live.dead]


def _endpoint(server: LiveServer) -> Endpoint:
    serving = server.serving
    return Endpoint(
        deployment=server.server, tenant=serving.tenant, model=serving.model, socket=server.socket
    )


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


def _stays(endpoint: Endpoint, tenant: str, model: str, kept: Set[str]) -> bool:
    return (endpoint.tenant, endpoint.model) != (tenant, model) or endpoint.deployment in kept
