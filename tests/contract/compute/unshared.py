"""A node apart: work orders whose commands run in mount namespaces of their own.

They see neither the state folder nor the checkout nor the disk that the step stages to; inputs come out of a
bucket, and outputs go into it. What a cluster does by a Pod's specification and its log goes through a folder
(`post`) here. `node` is what a node keeps between two tries.
"""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from resources.artifact_store.artifacts import Line
from resources.artifact_store.store import ArtifactStore
from resources.disk import require_free_space
from resources.engines.installation import installed_engine
from resources.engines.locks import EngineName, InstalledEngine
from resources.local.compute import ENGINE_LOG, _result
from resources.local.engine_messages import MessageFile
from resources.seams.compute import Outcome, RunContext, WorkOrder, WorkOrderError
from resources.waiting import wait_until
from resources.work_order_files import WAITING, OrderFolder, Transfers, received, worker_order

PASSED_ON = ("PATH", "HOME", "STORAGE_EMULATOR_HOST")
LISTENING_S = 0.1
SENT_S = 300


@dataclass(frozen=True, kw_only=True)
class UnsharedCompute:
    """As `resources.seams.compute.Compute` has it.

    Attributes:
        node: A folder that is none of the hidden ones.
        image: The folder with the platform's packages.
        hidden: Folders that are empty for everything that runs there.
    """

    store: ArtifactStore
    node: Path
    engines: Path
    image: Path
    hidden: tuple[Path, ...]

    def engine(self, name: EngineName) -> InstalledEngine:
        return installed_engine(self.engines, name)

    def clear(self, line: Line) -> None:
        subprocess.run(["rm", "-rf", self.node / "orders" / str(line)], check=True)

    def run(self, context: RunContext, order: WorkOrder) -> Outcome:
        if order.needs.nodes > 1:
            raise WorkOrderError(f"The order {order.worker!r} needs {order.needs.nodes} nodes; here is one.")
        require_free_space(self.node, order.needs.disk_bytes, what=f"The order {order.worker!r}")
        attempt = uuid.uuid4().hex
        kept = order.attempt(self.engine(order.engine)) if order.output else attempt
        place = self.node / "orders" / (str(order.output.line) if order.output else "no-line") / kept
        post = self.node / "post" / attempt
        post.mkdir(parents=True)
        transfers = Transfers.of(
            order,
            store_url=self.store.url,
            inputs_folder=place / "inputs",
            order_folder=place / "work",
            attempt=attempt,
        )
        (post / "transfers.json").write_text(transfers.model_dump_json())
        self._stage(post)
        folder = OrderFolder(root=transfers.order_folder)
        messages = MessageFile(post / "messages.jsonl")
        with (
            dg.open_pipes_session(
                context=context,
                extras={"order": worker_order(order, transfers.folders, folder)},
                context_injector=dg.PipesFileContextInjector(str(post / "order.json")),
                message_reader=messages,
            ) as session,
            self._sending(order, post),
        ):
            status = self._engine(order, post, session.get_bootstrap_env_vars(), messages)
            folder.ended.write_text(str(status))
            if order.output:
                wait_until(folder.sent.is_file, what="the end of sending", timeout_s=SENT_S)
        result = _result(order.worker, post, status, session.get_custom_messages(), 0)
        if order.output is None:
            return Outcome(result=result)
        if why := folder.sent.read_text():
            raise WorkOrderError(f"The output of the order {order.worker!r} was not sent: {why}")
        return Outcome(result=result, sent=received(self.store, transfers))

    def _stage(self, post: Path) -> None:
        command = self._platform("stage", post)
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise WorkOrderError(f"The inputs could not be staged: {done.stderr}")

    @contextmanager
    def _sending(self, order: WorkOrder, post: Path) -> Iterator[None]:
        if order.output is None:
            yield
            return
        log = post / "send.log"
        with log.open("w") as said:
            process = subprocess.Popen(
                self._platform("send", post), env=self._environment(), stdout=said, stderr=said
            )
        wait_until(lambda: WAITING in log.read_text(), what="the sender", timeout_s=SENT_S, every_s=0.1)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def _engine(
        self, order: WorkOrder, post: Path, bootstrap: Mapping[str, str], messages: MessageFile
    ) -> int:
        python = self.node / "engine" / "bin" / "python"
        command = self._apart([python, "-m", f"llm_assets.workers.{order.worker}"])
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.image),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(post / "huggingface"),
            **bootstrap,
        }
        with (post / ENGINE_LOG).open("wb") as log:
            process = subprocess.Popen(command, env=environment, cwd=post, stdout=log, stderr=log)
        try:
            while True:
                ended = process.poll()
                messages.read()
                if ended is not None:
                    return ended if ended >= 0 else 128 - ended
                try:
                    process.wait(timeout=LISTENING_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def _platform(self, command: str, post: Path) -> list[str]:
        python = self.node / "venv" / "bin" / "python"
        module = "resources.work_order_files"
        return self._apart([python, "-m", module, command, post / "transfers.json"])

    def _environment(self) -> dict[str, str]:
        """The order's own way to the store, and no other setting of the platform."""
        return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {
            "PYTHONPATH": str(self.image)
        }

    def _apart(self, command: Sequence[str | Path]) -> list[str]:
        engine = (self.engines / "train").resolve()
        bound = {Path(sys.prefix): self.node / "venv", engine: self.node / "engine"}
        script = ["set -e"]
        for source, target in bound.items():
            target.mkdir(exist_ok=True)
            script.append(f"mount --bind {source} {target}")
        script += [f"mount -t tmpfs tmpfs {folder}" for folder in self.hidden]
        rights = [] if os.geteuid() == 0 else ["--map-root-user"]
        inside = ["sh", "-c", "\n".join([*script, 'exec "$@"']), "sh", *map(str, command)]
        return ["unshare", "--mount", *rights, *inside]
