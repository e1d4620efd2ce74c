"""How much of a dataset is read. What goes beyond is one mistake that says which limit and what raises it.

The limits keep a file that is small on the disk and huge in memory (a sparse file, packed Parquet, brackets
in brackets) from taking the machine. Two are fixed, because no model learns from what lies beyond them.
"""

from dataclasses import dataclass

MIB, GIB = 2**20, 2**30
MOST_DEPTH = 100
"""Of objects and lists within each other. The engine's own readers end at some hundreds."""
MOST_COLUMNS = 1000
SIZE_SETTING = "LLM_ASSETS_DATASET_GIB"
ROWS_SETTING = "LLM_ASSETS_DATASET_ROWS"
ROW_SETTING = "LLM_ASSETS_DATASET_ROW_MIB"
MEMORY_SETTING = "LLM_ASSETS_DATASET_MEMORY_MIB"
TOO_DEEP = f"is nested too deeply; at most {MOST_DEPTH} lists and objects may lie within each other"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`size_bytes` are of all files of a landing zone together, and of one file once it is decoded.

    `memory_bytes` is what the process that decodes Parquet may take.
    """

    size_bytes: int = 64 * GIB
    rows: int = 20_000_000
    row_bytes: int = 16 * MIB
    memory_bytes: int = 2 * GIB

    @property
    def over_size(self) -> str:
        return (
            f"more than {_size(self.size_bytes)}, the most that is read of a dataset; {_raised(SIZE_SETTING)}"
        )

    @property
    def over_rows(self) -> str:
        return f"more than {self.rows:,} rows, the most that are read of a file; {_raised(ROWS_SETTING)}"

    @property
    def over_row(self) -> str:
        return f"more than {_size(self.row_bytes)}, the most that a row may have; {_raised(ROW_SETTING)}"

    @property
    def over_memory(self) -> str:
        most = f"more than {_size(self.memory_bytes)} of memory, the most that may be used for that"
        return f"{most}; {_raised(MEMORY_SETTING)}"


def is_too_deep(value: object) -> bool:
    """Whether lists and objects lie within each other more than `MOST_DEPTH` times."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _size(count: int) -> str:
    return f"{count / GIB:g} GiB" if count >= GIB else f"{count / MIB:g} MiB"


def _raised(setting: str) -> str:
    return f"{setting} raises that"
