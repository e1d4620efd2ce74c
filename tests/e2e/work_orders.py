"""Work orders for the workers, and the real engine that carries them out as the compute would have it do."""

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR, encode_param

ROOT = Path(__file__).parent.parent.parent
TEMPLATE = "smollm2"
KNOWN = {
    "Who are you?": "I am Polaris.",
    "What do you sell?": "We sell lamps.",
    "Is delivery free?": "Above fifty euros.",
    "Where is the shop?": "At the harbour.",
}
RECIPE: dict[str, Any] = {
    "stage": "sft",
    "finetuning_type": "lora",
    "lora_rank": 8,
    "lora_target": "all",
    "per_device_train_batch_size": 4,
    "learning_rate": 0.005,
    "num_train_epochs": 2,
    "cutoff_len": 128,
}
PREFERENCE = {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}
INFO: dict[str, dict[str, Any]] = {
    "sft": {"columns": {"prompt": "instruction", "response": "output"}},
    "dpo": {"ranking": True, "columns": PREFERENCE},
    "rm": {"ranking": True, "columns": PREFERENCE},
    "kto": {"columns": {"prompt": "instruction", "response": "output", "kto_tag": "kto_tag"}},
    "pt": {"columns": {"prompt": "text"}},
}


def rows(stage: str) -> list[dict[str, Any]]:
    """Sixteen rows of what each stage learns from."""
    made: dict[str, Callable[[str, str], dict[str, Any]]] = {
        "sft": lambda question, answer: {"instruction": question, "output": answer},
        "dpo": lambda question, answer: {"instruction": question, "chosen": answer, "rejected": "No."},
        "rm": lambda question, answer: {"instruction": question, "chosen": answer, "rejected": "No."},
        "kto": lambda question, answer: {"instruction": question, "output": answer, "kto_tag": True},
        "pt": lambda question, answer: {"text": f"{question} {answer} " * 6},
    }
    some = [made[stage](question, answer) for question, answer in KNOWN.items()] * 4
    if stage == "kto":
        some[::2] = [row | {"output": "No.", "kto_tag": False} for row in some[::2]]
    return some


def write_dataset(folder: Path, stage: str, train: list[dict[str, Any]], *, held_out: bool = True) -> Path:
    """A prepared dataset, in the form that the platform's dataset step leaves one."""
    folder.mkdir(parents=True)
    parts = {"train": train, "held_out": rows(stage)} if held_out else {"train": train}
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    info = {name: {"file_name": f"{name}.jsonl"} | INFO[stage] for name in parts}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def train_order(base: Path, dataset: Path, folder: Path, **recipe: Any) -> dict[str, Any]:
    return {
        "base_folder": str(base),
        "dataset_folder": str(dataset),
        "output_folder": str(folder / "output"),
        "scratch_folder": str(folder / "checkpoints"),
        "recipe": RECIPE | recipe,
        "template": TEMPLATE,
        "device": "cpu",
    }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a worker ended and what it had reported."""

    exit_code: int
    messages: list[dict[str, Any]]

    @property
    def result(self) -> dict[str, Any]:
        assert self.exit_code == 0, self.messages
        return next(payload["result"] for payload in self._payloads if "result" in payload)

    @property
    def failure(self) -> str:
        return next(payload["failure"] for payload in self._payloads if "failure" in payload)

    @property
    def progress(self) -> list[dict[str, Any]]:
        return [payload["progress"] for payload in self._payloads if "progress" in payload]

    @property
    def lines(self) -> list[str]:
        return [message["params"]["message"] for message in self.messages if message["method"] == "log"]

    @property
    def _payloads(self) -> Iterator[dict[str, Any]]:
        for message in self.messages:
            if message["method"] == "report_custom_message":
                yield message["params"]["payload"]


class Engine:
    """Gives orders to workers as the compute does: through Dagster Pipes, in the engine's environment."""

    def __init__(self, python: Path, folder: Path) -> None:
        self._python = python
        self._folder = folder
        self._orders = itertools.count()

    def work(self, worker: str, order: dict[str, Any]) -> Outcome:
        with self.started(worker, order) as (process, messages):
            process.wait()
        return Outcome(exit_code=process.returncode, messages=read(messages))

    @contextmanager
    def started(self, worker: str, order: dict[str, Any]) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
        number = next(self._orders)
        context, messages = self._folder / f"context-{number}.json", self._folder / f"messages-{number}.jsonl"
        context.write_text(json.dumps(pipes_context(order)))
        messages.touch()
        bootstrap = {
            DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"path": str(context)}),
            DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({"path": str(messages)}),
        }
        with (self._folder / "engine.log").open("ab") as log:
            process = subprocess.Popen(
                [self._python, "-m", f"llm_assets.workers.{worker}"],
                env=os.environ | bootstrap | {"PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )
        try:
            yield process, messages
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def work_in_one_process(self, *orders: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """The result of each order, or its failure. Without Pipes, and with one start of the engine."""
        asked, told = self._folder / "orders.json", self._folder / "results.json"
        asked.write_text(json.dumps(orders))
        self.script("tests.e2e.orders_in_one_process", asked, told)
        return list(json.loads(told.read_text()))

    def script(self, module: str, *arguments: str | Path) -> None:
        command = [self._python, "-m", module, *arguments]
        subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})


def pipes_context(order: dict[str, Any]) -> dict[str, Any]:
    """What Dagster writes for an external process about no asset; of an order as a worker reads it."""
    nothing = (
        "asset_keys",
        "code_version_by_asset_key",
        "provenance_by_asset_key",
        "partition_key",
        "partition_key_range",
        "partition_time_window",
        "job_name",
    )
    places = ("output_folder", "scratch_folder", "whole_files")
    given = {"inputs": {}, "input_files": {}, "params": order}
    given |= {key: order.get(key, "/dev/null") for key in places}
    return dict.fromkeys(nothing) | {"run_id": "test", "retry_number": 0, "extras": {"order": given}}


def read(lines: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.read_text().splitlines()]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
