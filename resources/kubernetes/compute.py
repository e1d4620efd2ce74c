"""Work orders as Kubernetes Jobs in the tenant's training namespace; see `resources.seams.compute`.

The Job's status decides how an order ended. What the worker reports comes as the log of its container, which
is asked for once a second: nothing waits on a connection, so a silent node stops nobody.

Not covered yet: queues, several nodes, scratch that a second try finds, and a step that restarts and looks
for its Job. A step that is stopped deletes it; after one that died, the Job's deadline and
`ttlSecondsAfterFinished` clear up.
"""

import json
import secrets
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import dagster as dg
from dagster._core.pipes.context import PipesMessageHandler  # what a reader is given; not re-exported
from dagster_pipes import (
    PIPES_PROTOCOL_VERSION_FIELD,
    PipesContextData,
    PipesDefaultContextLoader,
    PipesDefaultMessageWriter,
    PipesParams,
)

from resources.artifact_store.artifacts import Line
from resources.artifact_store.store import ArtifactStore
from resources.engines.errors_in_log import own_error
from resources.engines.locks import EngineName, InstalledEngine, lock_digest, locked
from resources.kubernetes.cluster import Cluster, KubernetesError, Object
from resources.kubernetes.jobs import (
    STAGE,
    Ended,
    OrderJob,
    container_ended,
    finished,
    job,
    started,
    told,
    waits_for,
)
from resources.kubernetes.pods import CONTEXT, INPUTS, ORDER, PodSettings
from resources.seams.compute import Outcome, RunContext, WorkOrder, WorkOrderError
from resources.work_order_files import OrderFolder, Transfers, received, worker_order

ASKED_EVERY_S = 1.0
REFUSED_AFTER_S = 10  # a Job without a pod: what forbids it is told by an event
LOG_TAIL_LINES = 15
KILLED_FROM = 128  # exit codes of signals


@dataclass(frozen=True, kw_only=True)
class KubernetesCompute:
    """Runs work orders as Jobs: none outlives the run that asked for it.

    Attributes:
        store: As this process reaches it.
        shared_namespace: Where the orders run that belong to no tenant.
        start_timeout_s: How long an order may wait for a node, an image and its inputs.
        seconds: How long it may take.
    """

    cluster: Cluster
    pods: PodSettings
    store: ArtifactStore
    shared_namespace: str
    start_timeout_s: int
    seconds: int

    def engine(self, name: EngineName) -> InstalledEngine:
        """The image of an engine is made from the lock that lies beside this code."""
        device = self.pods.device
        return InstalledEngine(
            engine=name, device=device, lock_digest=lock_digest(name, device), versions=locked(name, device)
        )

    def run(self, context: RunContext, order: WorkOrder) -> Outcome:
        """See `resources.seams.compute.Compute`."""
        if order.needs.nodes > 1:
            raise WorkOrderError(
                f"The order {order.worker!r} needs {order.needs.nodes} nodes; a Job has one."
            )
        attempt = secrets.token_hex(8)
        transfers = Transfers.of(
            order, store_url=self.pods.store_url, inputs_folder=INPUTS, order_folder=ORDER, attempt=attempt
        )
        given = worker_order(order, transfers.folders, OrderFolder(root=ORDER))
        injected, reported = _Context(), _Reported(context)
        with dg.open_pipes_session(
            context=context, extras={"order": given}, context_injector=injected, message_reader=reported
        ) as session:
            of = self._job(order, attempt, session.get_bootstrap_env_vars())
            with self._running(of, injected.data, transfers):
                context.log.info(f"{order.worker} runs as Job {of.namespace}/{of.name}.")
                _Following(self, of, reported, context).to_the_end()
        result = reported.result
        if result is None:
            raise WorkOrderError(
                f"The work order {order.worker!r} failed: the engine ended without a result."
            )
        return Outcome(result=result, sent=received(self.store, transfers) if order.output else None)

    def clear(self, line: Line) -> None:
        """A Job leaves nothing behind."""

    def _job(self, order: WorkOrder, attempt: str, bootstrap: Mapping[str, str]) -> OrderJob:
        lines = [order.output.line] if order.output else [each.line for each in order.inputs.values()]
        tenant = next((line.tenant for line in lines if line.tenant), None)
        return OrderJob(
            name=f"{order.worker.replace('_', '-')}-{attempt}",
            namespace=training_namespace(tenant) if tenant else self.shared_namespace,
            tenant=tenant,
            engine=order.engine,
            worker=order.worker,
            needs=order.needs,
            bootstrap=bootstrap,
            sends=order.output is not None,
            timeout_s=self.start_timeout_s + self.seconds,
        )

    @contextmanager
    def _running(self, of: OrderJob, context: PipesContextData, transfers: Transfers) -> Iterator[None]:
        """The Job for as long as the block runs. Its pod waits for the ConfigMap, which goes with the Job."""
        try:
            made = self.cluster.apply(job(of, self.pods))
            self.cluster.apply(told(of, context, transfers, job_uid=made["metadata"]["uid"]))
            yield
        finally:
            self.cluster.delete("Job", of.namespace, of.name)


def training_namespace(tenant: str) -> str:
    return f"{tenant}-training"


class _Context(dg.PipesContextInjector):
    """Keeps what the worker is given, for a file in its container."""

    data: PipesContextData

    @contextmanager
    def inject_context(self, context_data: PipesContextData) -> Iterator[PipesParams]:
        self.data = context_data
        yield {PipesDefaultContextLoader.FILE_PATH_KEY: str(CONTEXT)}

    def no_messages_debug_text(self) -> str:
        return f"The context was given by a ConfigMap as {CONTEXT}."


@dataclass
class _Reported(dg.PipesMessageReader):
    """What the engine's container said: its worker's messages, each handed on once, and the rest's end."""

    context: RunContext
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_TAIL_LINES))
    last: str = ""  # when the last line that was read was said, as Kubernetes writes it
    result: dict[str, object] | None = None
    failure: str | None = None
    _handler: PipesMessageHandler | None = None

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[PipesParams]:
        self._handler = handler
        yield {PipesDefaultMessageWriter.STDIO_KEY: PipesDefaultMessageWriter.STDOUT}

    def read(self, log: str) -> None:
        """Takes what is new of a log whose lines begin with the time; its last line may be half a one."""
        for line in log.split("\n")[:-1]:
            said_at, _, text = line.partition(" ")
            if said_at > self.last:
                self.last = said_at
                self._take(text)

    def _take(self, text: str) -> None:
        start = text.find(f'{{"{PIPES_PROTOCOL_VERSION_FIELD}"')
        if start < 0:
            self.tail.append(text)
            return
        assert self._handler is not None
        message = json.loads(text[start:])
        payload = (message.get("params") or {}).get("payload") or {}
        self.result = payload.get("result", self.result)
        self.failure = payload.get("failure", self.failure)
        self._handler.handle_message(message)

    def no_messages_debug_text(self) -> str:
        return "Messages were read from the log of the Job's pod."


class _Following:
    """Asks after one Job until it has ended."""

    def __init__(
        self, compute: KubernetesCompute, of: OrderJob, reported: _Reported, context: RunContext
    ) -> None:
        self._compute, self._cluster, self._of = compute, compute.cluster, of
        self._reported, self._context = reported, context
        self._begun = time.monotonic()
        self._shown: str | None = None
        self._pod: Object | None = None

    def to_the_end(self) -> None:
        """Raises:
        WorkOrderError: It failed; the text has Kubernetes' reason and what the engine said last.
        """
        while True:
            found = self._cluster.get("Job", self._of.namespace, self._of.name)
            pods = self._cluster.find("Pod", self._of.namespace, labelSelector=self._of.selector)
            self._pod = pods[0] if pods else self._pod
            if found is None:
                raise self._failed("its Job was deleted by someone", retriable=True)
            self._hear()
            if ended := finished(found):
                if ended.reason:
                    raise self._job_failed(ended)
                return
            self._refuse_what_cannot_start()
            time.sleep(ASKED_EVERY_S)

    def _hear(self) -> None:
        if self._pod is None or not started(self._pod, self._of.engine):
            return
        since = {"sinceTime": self._reported.last} if self._reported.last else {}
        name = self._pod["metadata"]["name"]
        with suppress(KubernetesError):  # a node that is silent; its Job is asked about all the same
            log = self._cluster.log(self._of.namespace, name, self._of.engine, timestamps="true", **since)
            self._reported.read(log or "")

    def _refuse_what_cannot_start(self) -> None:
        waited_s = time.monotonic() - self._begun
        if self._pod is None:
            reason = self._no_pod() if waited_s > REFUSED_AFTER_S else None
            hopeless = reason is not None
        elif started(self._pod, self._of.engine):
            return
        else:
            reason, hopeless = waits_for(self._pod) or (None, False)
        if reason and reason != self._shown:
            self._context.log.info(f"Job {self._of.name} waits: {reason}")
            self._shown = reason
        if hopeless or waited_s > self._compute.start_timeout_s:
            raise self._failed(f"it did not start in {waited_s:.0f} s: {reason or 'no reason is known'}")

    def _no_pod(self) -> str | None:
        about = f"involvedObject.name={self._of.name},reason=FailedCreate"
        events = self._cluster.find("Event", self._of.namespace, fieldSelector=about)
        return next((each["message"] for each in events), None)

    def _job_failed(self, ended: Ended) -> WorkOrderError:
        if self._reported.failure:
            return self._failed(self._reported.failure)
        stage = self._pod and container_ended(self._pod, STAGE)
        if stage and stage.exit_code:
            return self._failed(f"its inputs could not be staged: {stage.said}")
        engine = self._pod and container_ended(self._pod, self._of.engine)
        if not engine:
            retriable = ended.reason != "DeadlineExceeded"
            return self._failed(f"{ended.reason}: {ended.said}", retriable=retriable)
        how = f"exit code {engine.exit_code}, {engine.reason}"
        if own := own_error("\n".join(self._reported.tail)):
            how += f". Its last error: {own}"
        killed = engine.exit_code >= KILLED_FROM and engine.reason != "OOMKilled"
        ended_how = "was killed" if killed else "ended"
        tail = "\n".join(self._reported.tail)
        return self._failed(f"the engine {ended_how} ({how}). The end of its log:\n{tail}", retriable=killed)

    def _failed(self, why: str, *, retriable: bool = False) -> WorkOrderError:
        of = self._of
        return WorkOrderError(
            f"The work order {of.worker!r} failed: {why}\nIt was Job {of.name} in {of.namespace}.",
            retriable=retriable,
        )
