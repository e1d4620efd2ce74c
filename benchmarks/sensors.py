"""What one tick of the `landing_zones` sensor costs when nothing has changed.

    make bench BENCH=sensors

`tick_10000_datasets_s`: ten thousand landing zones looked at and compared with the cursor.
"""

import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path

from benchmarks.measuring import conclude
from llm_assets.folder_stamps import files_of_dataset, stamps
from llm_assets.sensors.watching import Watched, look

DATASETS = (1_000, 10_000)
ROUNDS = 5


def main() -> None:
    rows = [_row(count) for count in DATASETS]
    conclude("sensors", rows, {"tick_10000_datasets_s": float(rows[-1]["seconds"])})


def _row(count: int) -> dict[str, float | int | str]:
    with tempfile.TemporaryDirectory(prefix="sensors-") as folder:
        for number in range(count):
            landing_zone = Path(folder, f"tenant-{number}", "support_bot")
            landing_zone.mkdir(parents=True)
            (landing_zone / "rows.jsonl").write_text("{}\n")
        watched, _ = look(Watched(), stamps(Path(folder), files_of_dataset))
        watched, at_rest = look(watched, stamps(Path(folder), files_of_dataset))
        cursor = watched.settle(at_rest).to_cursor()
        seconds = [_tick(Path(folder), cursor) for _ in range(ROUNDS)]
        tracemalloc.start()
        _tick(Path(folder), cursor)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    system = f"landing_zones, {count} unchanged datasets"
    return {"system": system, "seconds": statistics.median(seconds), "peak_bytes": peak, "rounds": ROUNDS}


def _tick(root: Path, cursor: str) -> float:
    started = time.perf_counter()
    watched, at_rest = look(Watched.from_cursor(cursor), stamps(root, files_of_dataset))
    watched.to_cursor()
    assert not at_rest
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
