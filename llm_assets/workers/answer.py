"""The work order `answer`: a model answers questions greedily, as `merge` does.

Order: model_folder, template, questions, max_new_tokens, scratch_folder; optionally recipe (what of it
shapes the template), device, dtype.
"""

import time
from pathlib import Path

from llm_assets.workers import machine
from llm_assets.workers.reporting import Order, Report, Result, work


def run(order: Order, report: Report) -> Result:
    machine.prepare(order.get("device", "cpu"), cache=Path(order["scratch_folder"]) / "cache")
    from llm_assets.workers import chat_template, greedy

    started = time.monotonic()
    folder = Path(order["model_folder"])
    given = greedy.answers(
        folder,
        chat_template.Encoding(folder, order["template"], order.get("recipe", {})),
        order["questions"],
        max_new_tokens=order["max_new_tokens"],
        dtype=order.get("dtype", "auto"),
        report=report,
    )
    return {"answers": given, "seconds": round(time.monotonic() - started, 3), **machine.peak_memory()}


if __name__ == "__main__":
    work(run)
