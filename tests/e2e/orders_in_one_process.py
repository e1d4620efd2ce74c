"""Carries out work orders one after another in one engine process, which saves its start of 7 s each.

Run in the train engine: `python -m tests.e2e.orders_in_one_process ORDERS.json RESULTS.json`. Orders are
`[worker, order]`. A result is what the worker returned, or `{"failure": cause}`.
"""

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any


class Silent:
    """Stands where a worker reports to its run."""

    def line(self, text: str) -> None:
        print(text, flush=True)

    def progress(self, values: dict[str, Any], *, last: bool = False) -> None:
        print(values, flush=True)

    def file(self, values: dict[str, Any]) -> None:
        print(values, flush=True)


def carry_out(orders: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    from llm_assets.workers.failures import cause_of

    results = []
    for name, order in orders:
        worker = importlib.import_module(f"llm_assets.workers.{name}")
        try:
            with tempfile.TemporaryDirectory() as scratch:
                results.append(worker.run({"scratch_folder": scratch} | order, Silent()))
        except Exception as error:  # noqa: BLE001  what a worker's main does
            results.append({"failure": cause_of(error, Path(order.get("output_folder", ".")))})
    return results


if __name__ == "__main__":
    results = carry_out(json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps(results))
