"""The work order `merge`: base and adapter become the one folder that is served, and it answers.

Order: base_folder, adapter_folder, output_folder, scratch_folder, template, recipe, questions,
max_new_tokens; optionally device; dtype, the one that it will be served in (else that of its weights);
merge, `stream` (the default) or `export`; base_files and adapter_files, SHA-256 by file name;
held_out, rows of `messages` and `reply` on which it is compared with base and adapter.

The weights are merged as a stream (`merge_weights`) before anything heavy is imported, so that this phase's
time and memory are its own; a recipe that resizes the vocabulary needs LLaMA-Factory's export. A
model that was trained in full is its own merged model.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from llm_assets.workers import (
    chat_template,
    exporting,
    fidelity,
    greedy,
    machine,
    merge_weights,
    trained_files,
)
from llm_assets.workers.failures import WorkerError
from llm_assets.workers.merging.journal import check_sha256, sha256_of
from llm_assets.workers.merging.tying import check_export, settle_exported
from llm_assets.workers.reporting import Order, Report, Result, work


def run(order: Order, report: Report) -> Result:
    """Leaves the merged model in output_folder, in Hugging Face form."""
    output = Path(order["output_folder"])
    started = time.monotonic()
    method = _method(order, report)
    merged = _stream(order, report) if method == "stream" else {"dtype": None}
    machine.prepare(order.get("device", "cpu"), cache=Path(order["scratch_folder"]) / "cache")
    if method == "stream":
        exporting.write_tokenizer(order)
    elif method == "export":
        _check_files(order, "base")
        _check_files(order, "adapter")
        check_export(Path(order["base_folder"]), Path(order["adapter_folder"]))
        exporting.export(order)
        settle_exported(output)
        report.line(f"Base model and adapter are merged by the export ({time.monotonic() - started:.0f} s).")
    else:
        _check_files(order, "adapter")
        shutil.rmtree(output, ignore_errors=True)
        trained_files.keep(Path(order["adapter_folder"]), output, base_model=None)
        report.line("The model was trained in full: its weights are the merged model.")
    settled = chat_template.settle(output, order["template"], order["recipe"])
    settled.write(output)
    report.line(f"Chat template: {settled.origin}.")
    if method == "stream":
        _report_small_files(output, report)
    encoding = chat_template.Encoding(output, order["template"], order["recipe"])
    answers = _answers(order, output, encoding, report)
    dtype = merged.pop("dtype") or weights_dtype(output)
    compared = method != "trained in full" and not exporting.resizes_vocabulary(order)
    return {
        "method": method,
        "answers": answers,
        "dtype": dtype,
        "chat_template": settled.origin,
        "fidelity": fidelity.compare(order, encoding, answers, dtype, report, at_random=method == "stream")
        if compared
        else None,
        **merged,
        "seconds": round(time.monotonic() - started, 3),
        **machine.peak_memory(),
        "engine_versions": machine.engine_versions(),
    }


def weights_dtype(folder: Path) -> str:
    """The precision that a model's configuration gives for its weights, such as `bfloat16`."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def _method(order: Order, report: Report) -> str:
    if not (Path(order["adapter_folder"]) / trained_files.ADAPTER_CONFIG).is_file():
        return "trained in full"
    wanted = str(order.get("merge", "stream"))
    if wanted == "stream" and exporting.resizes_vocabulary(order):
        report.line("The recipe resizes the vocabulary, so LLaMA-Factory's export merges it.")
        return "export"
    return wanted


def _check_files(order: Order, which: str) -> None:
    """What the stream does as it reads, for those that read by themselves."""
    expected = order.get(f"{which}_files", {})
    for name, wanted in expected.items():
        path = Path(order[f"{which}_folder"]) / name
        if not path.is_file():
            raise WorkerError(f"{path} is missing. Delete its folder and materialize it again.")
        check_sha256(path, wanted, sha256_of(path))


def _stream(order: Order, report: Report) -> dict[str, Any]:
    started = time.monotonic()
    [model] = merge_weights.merge(order, [order], report)
    stream = {
        "seconds": round(time.monotonic() - started, 3),
        "peak_memory_bytes": machine.peak_resident_bytes(),
    }
    facts = {key: value for key, value in model.facts().items() if key != "files"}
    report.line(
        f"Base model and adapter are merged ({stream['seconds']:.1f} s, "
        f"{stream['peak_memory_bytes'] / 2**20:.0f} MiB of memory): {facts['ledger']}."
    )
    return facts | {"stream": stream}


def _report_small_files(output: Path, report: Report) -> None:
    """As they are at last; the weights were reported as they were written."""
    for path in sorted(output.iterdir()):
        if path.suffix != ".safetensors":
            report.file({"path": path.name, "size_bytes": path.stat().st_size, "sha256": sha256_of(path)})


def _answers(
    order: Order, folder: Path, encoding: chat_template.Encoding, report: Report
) -> list[greedy.Answer]:
    return greedy.answers(
        folder,
        encoding,
        order["questions"],
        max_new_tokens=order["max_new_tokens"],
        dtype=order.get("dtype", "auto"),
        report=report,
    )


if __name__ == "__main__":
    work(run)
