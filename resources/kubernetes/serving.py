"""Serving as Deployments in the tenant's inference namespace; see `resources.seams.serving.ModelServing`.

Not covered yet: autoscaling, disruption budgets, network policies, weights that are streamed, and the
addresses of pods (a backend's address is its Service's).
"""

import secrets
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from resources.artifact_store.artifacts import Artifact, ArtifactError
from resources.artifact_store.store import ArtifactStore
from resources.kubernetes.cluster import Cluster, Object
from resources.kubernetes.deployments import (
    BACKEND_LABEL,
    KEY,
    KEY_SECRET,
    PORT,
    START_TIMEOUT_S,
    available,
    backend_id,
    backends_of,
    deployment,
    inference_namespace,
    key_secret,
    recorded,
    service,
    staging,
)
from resources.kubernetes.jobs import STAGE, waits_for
from resources.kubernetes.pods import MANAGED, MODEL_LABEL, TENANT_LABEL, PodSettings
from resources.object_stores.objects import ObjectStoreError
from resources.seams.serving import (
    WHOLE,
    Backend,
    Deployment,
    Device,
    Log,
    Route,
    Serving,
    ServingError,
    Status,
    check_servings,
)
from resources.vllm.answers import difference
from resources.vllm.client import VllmClient
from resources.vllm.program import last_error
from resources.waiting import WaitError, wait_until

LOG_TAIL_LINES = "12"


@dataclass(frozen=True, kw_only=True)
class KubernetesServing:
    """Serves models as Deployments: each version one, beside the others of its model.

    Attributes:
        store: As this process reaches it.
    """

    cluster: Cluster
    pods: PodSettings
    store: ArtifactStore

    @property
    def device(self) -> Device:
        return self.pods.device

    def deploy(self, servings: tuple[Serving, ...], *, publish: Callable[[Route], object], log: Log) -> Route:
        """See `resources.seams.serving.ModelServing`."""
        check_servings(servings)
        production, *others = servings
        before = {each.id: each for each in self._backends(production.tenant, production.model)}
        route = Route(
            tenant=production.tenant, model=production.model, api_key=self._api_key(production.tenant)
        )
        faults: list[str] = []
        for serving in servings:
            try:
                backend = self._live(serving, before, len(servings), route.api_key, log)
            except ServingError as fault:
                faults.append(str(fault))
                if serving is production:
                    break
                continue
            route = _with(route, backend)
            if serving is production and all(backend_id(each) in before for each in others):
                continue  # the route is whole in a moment
            self._settle(route, servings, publish)
        if faults:
            on = " and ".join(each.version for each in self.route(route.tenant, route.model).backends)
            raise ServingError(
                "\n".join([*faults, f"Version {on} goes on serving." if on else "Nothing is live."])
            )
        return route

    def stop(self, tenant: str, model: str) -> None:
        """Its Deployments stay, with no pod, and say which versions were live."""
        namespace = inference_namespace(tenant)
        backends = self._backends(tenant, model)
        for place, backend in enumerate(backends):
            change = recorded(replace(backend, status="stopped", why=None), place)
            self.cluster.merge("Deployment", namespace, backend.id, {**change, "spec": {"replicas": 0}})
        self._end_others(tenant, model, {backend.id for backend in backends})

    def route(self, tenant: str, model: str) -> Route:
        live = tuple(each for each in self._backends(tenant, model) if each.status != "stopped")
        return Route(tenant=tenant, model=model, backends=live, api_key=self._key_of(tenant) or "")

    def routes(self) -> Iterable[Route]:
        found = self.cluster.find_everywhere("Deployment", labelSelector=MANAGED)
        labels = [each["metadata"]["labels"] for each in found]
        for tenant, model in sorted({(each[TENANT_LABEL], each[MODEL_LABEL]) for each in labels}):
            yield self.route(tenant, model)

    def state(self, tenant: str, model: str) -> Deployment:
        backends = self._backends(tenant, model)
        kinds = {each.status for each in backends}
        status: Status = "live"
        if not backends:
            status = "starting" if self._deployments(tenant, model) else "absent"
        elif len(kinds) == 1:
            (status,) = kinds
        elif "dead" in kinds:
            status = "degraded"
        dead = [f"version {each.version}: {each.why}" for each in backends if each.status == "dead"]
        return Deployment(
            tenant=tenant, model=model, status=status, backends=backends, why="; ".join(dead) or None
        )

    def states(self) -> tuple[Deployment, ...]:
        return tuple(self.state(route.tenant, route.model) for route in self.routes())

    @contextmanager
    def watching(self, log: Log) -> Iterator[Callable[[], None]]:
        """The liveness probe ends what hangs."""
        yield lambda: None

    def _live(
        self, serving: Serving, before: dict[str, Backend], live_versions: int, key: str, log: Log
    ) -> Backend:
        """The backend of a version, started and proven unless it is live already.

        Raises:
            ServingError: It did not start or does not answer as it should; a new one is taken away again.
        """
        name, namespace = backend_id(serving), inference_namespace(serving.tenant)
        inputs = self._inputs(serving)
        made = self.cluster.apply(deployment(serving, self.pods, live_versions=live_versions))
        uid = made["metadata"]["uid"]
        self.cluster.apply(staging(serving, self.pods, inputs, owner_uid=uid))
        address = f"{self.cluster.apply(service(serving, owner_uid=uid))['spec']['clusterIP']}:{PORT}"
        known = before.get(name)
        if known and known.status == "live" and available(made):
            log(f"{serving.name} version {serving.version} is live already.")
            return replace(known, weight=serving.weight, aliases=serving.aliases)
        try:
            self._wait_ready(serving)
            log(f"vLLM of {serving.name} version {serving.version} is up; asking it the known questions.")
            self._ask_known(serving, address, key)
        except BaseException as fault:  # a cancelled run too
            tail = self._log_tail(namespace, name)
            if known is None:
                self.cluster.delete("Deployment", namespace, name)
            if isinstance(fault, WaitError | ServingError):
                raise ServingError(f"{fault}\n{tail}") from fault
            raise
        return Backend(
            id=name,
            version=serving.version,
            digest=serving.digest,
            fingerprint=serving.fingerprint,
            address=address,
            weight=serving.weight,
            aliases=serving.aliases,
            since=time.time(),
        )

    def _inputs(self, serving: Serving) -> dict[str, Artifact]:
        named = {"model": (serving.model_uri, serving.model_digest)}
        if serving.adapter_uri and serving.adapter_digest:
            named["adapter"] = (serving.adapter_uri, serving.adapter_digest)
        found = {}
        for name, (uri, digest) in named.items():
            try:
                found[name] = self.store.get(uri)
            except (ArtifactError, ObjectStoreError) as fault:
                raise ServingError(
                    f"{serving.name} version {serving.version} cannot be served: {fault}"
                ) from fault
            if found[name].digest != digest:
                raise ServingError(f"{uri} has the digest {found[name].digest}, promoted was {digest}.")
        return found

    def _wait_ready(self, serving: Serving) -> None:
        name, namespace = backend_id(serving), inference_namespace(serving.tenant)

        def ready() -> bool:
            found = self.cluster.get("Deployment", namespace, name)
            return found is not None and available(found)

        wait_until(
            ready,
            what=f"vLLM of {serving.name} version {serving.version} (Deployment {namespace}/{name})",
            timeout_s=START_TIMEOUT_S,
            every_s=1,
            failed=lambda: next(filter(None, map(_cannot_start, self._pods(namespace, name))), None),
        )

    def _ask_known(self, serving: Serving, address: str, key: str) -> None:
        # Merged, both names are one model. An adapter is loaded once for each of its names.
        names = serving.served_names if serving.mode == "adapter" else serving.served_names[:1]
        with VllmClient(address, key) as client:
            for name in names:
                for known in serving.known_answers:
                    served = client.answer(name, known)
                    found = difference(known, served)
                    if served["digest"] != serving.digest:
                        found = f"it says that it serves {served['digest']}, not {serving.digest}"
                    if found:
                        raise ServingError(
                            f"vLLM of {serving.name} does not answer as version {serving.version}: {found}."
                        )

    def _settle(
        self, route: Route, servings: tuple[Serving, ...], publish: Callable[[Route], object]
    ) -> None:
        """Publishes a route and ends what none of `servings` is; from then on it is what is live."""
        publish(route)
        namespace = inference_namespace(route.tenant)
        for place, backend in enumerate(route.backends):
            self.cluster.merge("Deployment", namespace, backend.id, recorded(backend, place))
        self._end_others(route.tenant, route.model, {backend_id(each) for each in servings})

    def _end_others(self, tenant: str, model: str, kept: set[str]) -> None:
        for found in self._deployments(tenant, model):
            if (name := found["metadata"]["name"]) not in kept:
                self.cluster.delete("Deployment", inference_namespace(tenant), name)

    def _api_key(self, tenant: str) -> str:
        """The key of the tenant's servers, made where there is none."""
        if (key := self._key_of(tenant)) is None:
            key = secrets.token_urlsafe(32)
            self.cluster.apply(key_secret(tenant, key))
        return key

    def _key_of(self, tenant: str) -> str | None:
        found = self.cluster.get("Secret", inference_namespace(tenant), KEY_SECRET)
        return b64decode(found["data"][KEY]).decode() if found else None

    def _backends(self, tenant: str, model: str) -> tuple[Backend, ...]:
        return backends_of(self._deployments(tenant, model))

    def _deployments(self, tenant: str, model: str) -> list[Object]:
        selector = f"{MANAGED},{TENANT_LABEL}={tenant},{MODEL_LABEL}={model}"
        return self.cluster.find("Deployment", inference_namespace(tenant), labelSelector=selector)

    def _pods(self, namespace: str, name: str) -> list[Object]:
        return self.cluster.find("Pod", namespace, labelSelector=f"{BACKEND_LABEL}={name}")

    def _log_tail(self, namespace: str, name: str) -> str:
        for pod in self._pods(namespace, name):
            for container in ("serve", STAGE):
                of = (namespace, pod["metadata"]["name"], container)
                log = self.cluster.log(*of, tailLines=LOG_TAIL_LINES, previous="true")
                log = log or self.cluster.log(*of, tailLines=LOG_TAIL_LINES)
                if log:
                    cause = f"Its last error: {error}\n" if (error := last_error(log)) else ""
                    return f"{cause}The end of the log of its container {container}:\n{log}"
        return "None of its pods has said anything."


def _with(route: Route, backend: Backend) -> Route:
    """A route with one more backend, all others' weights as they are and the rest production's."""
    backends = [*route.backends, backend]
    rest = WHOLE - sum(each.weight for each in backends[1:])
    return replace(route, backends=(replace(backends[0], weight=rest), *backends[1:]))


def _cannot_start(pod: Object) -> str | None:
    """Why a pod will never be ready; None where it may be."""
    waits = waits_for(pod)
    if waits and waits[1]:
        return waits[0]
    status = pod.get("status", {})
    for each in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        last = each.get("lastState", {}).get("terminated")
        if each.get("restartCount", 0) and last:
            said = last.get("message", "").strip()
            return f"its container {each['name']} ended with exit code {last['exitCode']}: {said}"
    return None
