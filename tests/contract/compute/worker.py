"""A worker that does what its params say; put beside the real ones, and run as they are."""

import hashlib
import os
import signal
import time
from pathlib import Path

from llm_assets.workers.failures import WorkerError
from llm_assets.workers.reporting import Order, Report, Result, work


def run(order: Order, report: Report) -> Result:
    output, scratch = Path(order["output_folder"]), Path(order["scratch_folder"])
    tries = scratch / "tries"
    tries.write_text("x" + (tries.read_text() if tries.is_file() else ""))
    for path, text in order.get("writes", {}).items():
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        (output / path).write_text(text)
    for path, target in order.get("links", {}).items():
        (output / path).symlink_to(target)
    for path in order.get("reports", []):
        content = (output / path).read_bytes()
        sha256 = order.get("says", hashlib.sha256(content).hexdigest())
        report.file({"path": path, "size_bytes": len(content), "sha256": sha256})
    report.line("It works.")
    time.sleep(order.get("seconds", 0))
    if "fails" in order:
        raise WorkerError(order["fails"])
    if order.get("is_killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    return {
        "tries": len(tries.read_text()),
        "inputs": {name: _files(Path(order[f"{name}_folder"])) for name in order.get("reads", [])},
        "sha256": {name: order[f"{name}_files"] for name in order.get("reads", [])},
        "sees": [path for path in order.get("looks_for", []) if Path(path).exists()],
        "environment": sorted(os.environ),
    }


def _files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    work(run)
