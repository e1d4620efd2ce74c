"""How a deployment is: whether its processes are there, and whether they answer."""

from collections.abc import Callable
from dataclasses import replace

from resources.local.serving.servers import VllmServers
from resources.processes.local_processes import ProcessRecord
from resources.seams.serving import Backend, Deployment, ServingError, Status


def running(servers: VllmServers, deployment: Deployment) -> tuple[Backend, ...]:
    """The recorded backends, dead where their process is gone. No server is asked."""
    return tuple(
        _observed(servers, deployment, each, servers.processes.alive) for each in deployment.backends
    )


def state_of(servers: VllmServers, tenant: str, model: str) -> Deployment:
    """As it is right now; its servers are asked."""
    folder = servers.folder(tenant, model)
    try:
        recorded = folder.read()
    except ServingError as error:
        return Deployment(tenant=tenant, model=model, status="unreadable", why=str(error))
    if recorded.status == "live":
        backends = tuple(_observed(servers, recorded, each, servers.ready) for each in recorded.backends)
    else:
        backends = tuple(replace(each, status="stopped") for each in recorded.backends)
    if not any(each.status == "live" for each in backends) and (coming := _starting(servers, recorded)):
        version = coming.attributes["version"]
        return Deployment(tenant=tenant, model=model, status="starting", starting=version)
    why = " ".join(each.why for each in backends if each.why) or None
    return replace(recorded, status=_status(backends), backends=backends, why=why)


def _status(backends: tuple[Backend, ...]) -> Status:
    statuses: set[Status] = {each.status for each in backends} or {"absent"}
    return statuses.pop() if len(statuses) == 1 else "degraded"


def _observed(
    servers: VllmServers, deployment: Deployment, backend: Backend, well: Callable[[ProcessRecord], bool]
) -> Backend:
    server = servers.processes.find(backend.id)
    if server and well(server):
        return backend
    what = f"vLLM of {deployment.tenant}/{deployment.model} version {backend.version}"
    return replace(backend, status="dead", why=_why_dead(servers, what, backend, server))


def _why_dead(servers: VllmServers, what: str, backend: Backend, server: ProcessRecord | None) -> str:
    if server is None:
        return f"{what} is not running and its process record {backend.id} is gone."
    who = f"{what} (pid {server.pid})"
    if servers.processes.alive(server):
        return f"{who} runs but does not answer; its log is {server.log}."
    return f"{who} died: {servers.cause(server)}. Its log is {server.log}."


def _starting(servers: VllmServers, deployment: Deployment) -> ProcessRecord | None:
    recorded = {each.id for each in deployment.backends}
    of_model = servers.of(deployment.tenant, deployment.model)
    coming = (each for each in of_model if each.name not in recorded and servers.processes.alive(each))
    return next(coming, None)
