"""The work order `merge_weights`: one base and one or more adapters become merged models, as a stream.

Order: base_folder, adapters (a list of adapter_folder, output_folder and, where known, adapter_files);
optionally base_files. The `…_files` are SHA-256 by file name: what is read in full is checked against
them. Each output is a whole model with the base's configuration and tokenizer; the work order `merge`
adds the chat template and the answers. Imports numpy alone, and no engine.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_assets.workers import machine
from llm_assets.workers.reporting import Order, Report, Result, work

if TYPE_CHECKING:
    from llm_assets.workers.merging.models import MergedModel


def run(order: Order, report: Report) -> Result:
    """`merged`: for each adapter its output_folder, files, ledger and dtype."""
    started = time.monotonic()
    models = merge(order, order["adapters"], report)
    return {
        "merged": [{"output_folder": str(model.folder), **model.facts()} for model in models],
        "seconds": round(time.monotonic() - started, 3),
        "peak_memory_bytes": machine.peak_resident_bytes(),
    }


def merge(order: Order, adapters: list[Mapping[str, Any]], report: Report) -> "list[MergedModel]":
    """Streams before anything heavy is imported: blocks are multiplied by one thread each."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from llm_assets.workers.merging.models import Request, merge_models

    requests = [
        Request(
            adapter_folder=Path(each["adapter_folder"]),
            output_folder=Path(each["output_folder"]),
            adapter_files=each.get("adapter_files", {}),
        )
        for each in adapters
    ]
    return merge_models(Path(order["base_folder"]), requests, order.get("base_files", {}), report)


if __name__ == "__main__":
    work(run)
