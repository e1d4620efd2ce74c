"""How a deployment is right now: the servers are asked."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from resources.processes.local_processes import ProcessRecord
from resources.serving.deployment_state import Deployment, LiveServer
from resources.serving.routes import BackendState, DeploymentState, Status
from resources.serving.servers import VllmServers
from resources.vllm.program import VllmError


def death_of(servers: VllmServers, tenant: str, model: str) -> str | None:
    """Which of the servers that should be live have no process any more, and why; None where all have one.

    None as well where nothing should be live, or nobody can read what should. No server is asked.
    """
    with suppress(VllmError):
        deployment = servers.folder(tenant, model).read()
        if deployment and not deployment.stopped:
            return " ".join(_deaths(servers, deployment)) or None
    return None


def _deaths(servers: VllmServers, deployment: Deployment) -> Iterator[str]:
    for live in deployment.servers:
        server = servers.processes.find(live.server)
        if server is None or not servers.processes.alive(server):
            yield _why_dead(servers, live, server)


def state_of(servers: VllmServers, tenant: str, model: str) -> DeploymentState:
    folder = servers.folder(tenant, model)
    try:
        deployment = folder.read()
    except VllmError as error:
        return DeploymentState(tenant=tenant, model=model, status="unreadable", why=str(error))
    stopped = deployment is not None and deployment.stopped
    recorded = deployment.servers if deployment else ()
    backends = tuple(_stopped(live) if stopped else _backend(servers, live) for live in recorded)
    live = any(backend.status == "live" for backend in backends)
    if not live and (starting := _starting(servers, tenant, model, deployment)):
        version = starting.attributes["version"]
        return DeploymentState(tenant=tenant, model=model, status="starting", version=version)
    if not backends:
        return DeploymentState(tenant=tenant, model=model, status="absent")
    return _state(tenant, model, backends)


def _state(tenant: str, model: str, backends: tuple[BackendState, ...]) -> DeploymentState:
    production = backends[0]
    return DeploymentState(
        tenant=tenant,
        model=model,
        status=_status(backends),
        version=production.version,
        digest=production.digest,
        since=production.since,
        why=" ".join(backend.why for backend in backends if backend.why) or None,
        backends=backends,
    )


def _status(backends: tuple[BackendState, ...]) -> Status:
    statuses = {backend.status for backend in backends}
    return statuses.pop() if len(statuses) == 1 else "degraded"


def _stopped(live: LiveServer) -> BackendState:
    return BackendState(
        version=live.serving.version,
        digest=live.serving.digest,
        weight=live.weight,
        status="stopped",
        since=live.since,
    )


def _backend(servers: VllmServers, live: LiveServer) -> BackendState:
    server = servers.processes.find(live.server)
    if server and servers.ready(server):
        return replace(_stopped(live), status="live")
    return replace(_stopped(live), status="dead", why=_why_dead(servers, live, server))


def _why_dead(servers: VllmServers, live: LiveServer, server: ProcessRecord | None) -> str:
    what = f"vLLM of {live.serving.name} version {live.serving.version}"
    if server is None:
        return f"{what} is not running and its process record {live.server} is gone."
    who = f"{what} (pid {server.pid})"
    if servers.processes.alive(server):
        return f"{who} runs but does not answer; its log is {server.log}."
    return f"{who} died: {servers.cause(server)}. Its log is {server.log}."


def _starting(
    servers: VllmServers, tenant: str, model: str, deployment: Deployment | None
) -> ProcessRecord | None:
    recorded = {live.server for live in deployment.servers} if deployment else set()
    coming = (s for s in servers.of(tenant, model) if s.name not in recorded and servers.processes.alive(s))
    return next(coming, None)
