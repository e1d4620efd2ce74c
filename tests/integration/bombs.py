"""Files that are small on the disk and huge in memory, or endless: one for each reader and limit.

Run as a script it reads one after the other, and prints as JSON what each said, the memory (in MiB) that it
took at its peak beyond what was in use before, and processor seconds.
"""

import json
import os
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_assets.catalog.web_ui import translate
from llm_assets.catalog.yaml_files import YamlError, read_yaml
from llm_assets.datasets.checking import Terms, look_into
from llm_assets.datasets.limits import MIB, Limits
from llm_assets.workers.bounded import bounded
from llm_assets.workers.failures import WorkerError
from resources.base_models.error import BaseModelSourceError
from resources.base_models.folders import inspect
from resources.base_models.gguf_files import read_gguf

LIMITS = Limits(size_bytes=64 * MIB, rows=20_000, row_bytes=MIB, memory_bytes=192 * MIB)
SPARSE_BYTES = 8 << 30
ROW = '{"instruction": "a", "output": "b"'


@dataclass(frozen=True)
class Bomb:
    """`make` writes it; `said` is a regular expression of what its reader says of it."""

    name: str
    make: Callable[[Path], object]
    said: str


def sparse(start: bytes = b"", size: int = 60 << 20) -> Callable[[Path], object]:
    """A file that begins with something and goes on with zeros that take no place on the disk."""

    def make(path: Path) -> None:
        path.write_bytes(start)
        os.truncate(path, size)

    return make


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


def parquet(columns: Callable[[], Any]) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"text": columns()}), path, compression="zstd")

    return make


def repeated(value: str, times: int) -> Any:
    import pyarrow

    return pyarrow.DictionaryArray.from_arrays(pyarrow.nulls(times, "int32").fill_null(0), [value])


def one_long_list(length: int) -> Any:
    import pyarrow

    values = pyarrow.nulls(length, "int8").fill_null(0)
    return pyarrow.ListArray.from_arrays(pyarrow.array([0, length], "int32"), values)


ROW_LIMIT = "more than 1 MiB, the most that a row may have; LLM_ASSETS_DATASET_ROW_MIB raises that"
DEEP = "is nested too deeply; at most 100 lists and objects may lie within each other"
DATASETS = (
    *(
        Bomb(f"sparse{suffix}", sparse(), rf"rows\{suffix}:1: .*{ROW_LIMIT}")
        for suffix in (".json", ".jsonl", ".csv")
    ),
    Bomb("sparse.parquet", sparse(), r"rows\.parquet:1: the file is no whole Parquet file"),
    Bomb("sparse.txt", sparse(), rf"rows\.txt:1: the line has {ROW_LIMIT}"),
    Bomb(
        "huge.jsonl",
        sparse(size=SPARSE_BYTES),
        "its files have 8,589,934,592 bytes together, .*; LLM_ASSETS_DATASET_GIB raises that",
    ),
    Bomb("long_text.json", text('[{"a": "' + "x" * (4 << 20)), rf"rows\.json:1: the row has {ROW_LIMIT}"),
    Bomb("long_object.json", text('{"a":\n "' + "x" * (4 << 20)), rf"rows\.json:1: the row has {ROW_LIMIT}"),
    Bomb("brackets.jsonl", text('{"a": ' + "[" * 900_000), rf"rows\.jsonl:1: {DEEP}"),
    Bomb("brackets.json", text("[" * 900_000), rf"rows\.json:1: {DEEP}"),
    Bomb("deep.jsonl", text(f'{ROW}, "a": {"[" * 300}{"]" * 300}}}\n'), rf"rows\.jsonl:1: {DEEP}"),
    Bomb("deep_tools.jsonl", text(f'{ROW}, "tools": "{"[" * 900}{"]" * 900}"}}\n'), rf"1: tools: .*{DEEP}"),
    Bomb("deepest_tools.jsonl", text(f'{ROW}, "tools": "{"[" * 90_000}"}}\n'), rf"1: tools: .*{DEEP}"),
    Bomb(
        "deep_call.jsonl",
        text(
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": '
            f'[{{"function": {{"name": "b", "arguments": "{"[" * 90_000}"}}}}]}}]}}\n'
        ),
        "^$",  # the arguments are a text, to the engine too
    ),
    Bomb("small_values.jsonl", text(f'{{"a": [{"[]," * 340_000}[]]}}\n'), "columns a are those of no format"),
    Bomb(
        "thoughts.jsonl",
        text(
            '{"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "'
            + "</think>"
            + "<think>" * 140_000
            + '"}]}\n'
        ),
        "^$",  # the markup of another template
    ),
    Bomb(
        "keys.jsonl", text("".join(f'{{"{n}": 1}}\n' for n in range(5000))), r"rows\.jsonl:1001: .* columns"
    ),
    Bomb(
        "quote.csv",
        text('instruction,output\n"a' + "\n" * (4 << 20)),
        rf"rows\.csv:2: the row has {ROW_LIMIT}",
    ),
    Bomb("header.csv", text("a," * 400_000 + "\n"), r"rows\.csv:1: a column comes twice|columns"),
    Bomb(
        "rows.jsonl",
        text(f"{ROW}}}\n" * 21_000),
        "more than 20,000 rows, the most that are read of a file; LLM_ASSETS_DATASET_ROWS raises that",
    ),
    Bomb(
        "repeated.parquet",
        parquet(lambda: repeated("x" * 5000, 20_000)),
        "its rows have more than 64 MiB, .*; LLM_ASSETS_DATASET_GIB raises that",
    ),
    Bomb(
        "wide.parquet",
        parquet(lambda: repeated("x" * (4 << 20), 50)),
        rf"rows\.parquet:1: .* {ROW_LIMIT}|memory",
    ),
    Bomb(
        "list.parquet",
        parquet(lambda: one_long_list(40_000_000)),
        r"rows\.parquet:1: .* more than 192 MiB of memory, .*; LLM_ASSETS_DATASET_MEMORY_MIB raises that",
    ),
    *(
        Bomb(f"{name}_dataset_info", text(json.dumps({"a": {"file_name": said}})), "a.file_name: ")
        for name, said in (("nul", "a\0.jsonl"), ("long", "a" * 5000 + ".jsonl"), ("climbing", "../" * 3000))
    ),
    Bomb("deep_dataset_info", text('{"a": ' + "[" * 100_000), r"dataset_info\.json: is not JSON"),
    Bomb(
        "many_dataset_info",
        text(json.dumps({str(number): {"file_name": "."} for number in range(100_000)})),
        r"dataset_info\.json: has 100,000 entries, and at most 1,000 are read",
    ),
    Bomb("sparse_dataset_info", sparse(), r"dataset_info\.json: has more than 4,000,000 bytes"),
)
CATALOG = (
    Bomb("sparse.yaml", sparse(size=SPARSE_BYTES), "the file has more than 1,000,000 bytes"),
    Bomb("deep.yaml", text("a: " + "[" * 900_000), "values lie more than 50 deep within each other"),
    Bomb("deep_block.yaml", text("a:\n" + "- " * 400_000), "values lie more than 50 deep within each other"),
    Bomb(
        "aliases.yaml",
        text("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 30))),
        "the file holds too much",
    ),
)
WEB_UI = tuple(
    Bomb(name, text(json.dumps({"train.extra_args": said})), "train.extra_args.*not a JSON object")
    for name, said in (
        ("cut_arguments", "[" * 90_000),
        ("deep_arguments", f'{{"a": {"[" * 900}{"]" * 900}}}'),
    )
)


def safetensors(header: bytes, length: int | None = None, size: int = 0) -> Callable[[Path], object]:
    announced = struct.pack("<Q", len(header) if length is None else length)

    def make(path: Path) -> None:
        path.with_name("config.json").write_text('{"architectures": ["A"]}')
        sparse(announced + header, max(size, len(header) + 8))(path)

    return make


def tensors(*places: tuple[int, int], shape: str = "[1]") -> bytes:
    said = [
        f'"{n}": {{"dtype": "U8", "shape": {shape}, "data_offsets": [{a}, {b}]}}'
        for n, (a, b) in enumerate(places)
    ]
    return f"{{{', '.join(said)}}}".encode()


WEIGHTS = (
    Bomb("length", safetensors(b"", 2**63 - 1), "its header would have 9,223,372,036,854,775,807 bytes"),
    Bomb("sparse_header", safetensors(b"{", 30 << 20, SPARSE_BYTES), "its header is not JSON"),
    Bomb("brackets", safetensors(b"[" * 5_000_000), "its header is not JSON"),
    Bomb("overlapping", safetensors(tensors((0, 1), (0, 1)), size=200), "starts at byte 0 and not at 1"),
    Bomb(
        "dimensions",
        safetensors(tensors((0, 1), shape=f"[{'9,' * 90_000}1]")),
        "a shape or place that no tensor",
    ),
    Bomb("negative", safetensors(tensors((0, 1), shape="[-1, -1]")), "a shape or place that no tensor has"),
    Bomb("infinite", safetensors(tensors((0, 1), shape="[Infinity]")), "its header says nothing usable of 0"),
)
CONFIGURATIONS = (
    Bomb("sparse_config", sparse(b'{"a": "', SPARSE_BYTES), "config.json has more than 67,108,864 bytes"),
    Bomb("deep_config", text('{"a": ' + "[" * 900_000), "config.json is not JSON"),
    Bomb(
        "repeated_text_config",
        text(
            '{"architectures": ["A"], "max_position_embeddings": 99999999999, '
            '"rope_scaling": {"type": "linear", "factor": "1234567890"}}'
        ),
        "taken: .*context_length=99999999999",
    ),
    Bomb(
        "repeated_list_config",
        text(
            '{"architectures": ["A"], "num_hidden_layers": 99999999999, "num_attention_heads": 9, '
            '"hidden_size": 9, "head_dim": [1, 2, 3], "layer_types": {"a": 1}, "text_config": "b"}'
        ),
        "taken: ",
    ),
)


def gguf(*parts: bytes, values: int = 0, tensors: int = 0) -> Callable[[Path], object]:
    start = b"GGUF" + struct.pack("<IQQ", 3, tensors, values)
    return sparse(start + b"".join(parts), SPARSE_BYTES)


GGUF = (
    Bomb("counts", gguf(values=2**60), "its header announces 1,152,921,504,606,846,976 values"),
    Bomb("tensors", gguf(tensors=90_000_000), "announces 0 values and 90,000,000 tensors"),
    Bomb("text", gguf(struct.pack("<Q", 2**32), values=1), "holds a text of 4,294,967,296 bytes"),
    Bomb(
        "texts",
        gguf(struct.pack("<QIIQ", 0, 9, 8, 2**31), values=1),
        "holds lists of 2,147,483,648 values",
    ),
    Bomb("skipped", gguf(struct.pack("<QIIQ", 0, 9, 0, 2**32), values=1), "has more than 268,435,456 bytes"),
)
TEMPLATES = (
    Bomb(
        "endless",
        text("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        "did not end within 1 s of processor time",
    ),
    Bomb("large", text("{{ 'x' * 9999999999 }}"), "needs more than 1024 MiB of memory"),
    Bomb(
        "growing",
        text("{% set a = namespace(b='x') %}{% for c in range(99) %}{% set a.b = a.b ~ a.b %}{% endfor %}"),
        "needs more than 1024 MiB of memory",
    ),
    Bomb("recursive", text("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"), "RecursionError"),
)


def read_dataset(bomb: Bomb, folder: Path) -> str:
    """As `check` and the run read it; the dataset of a `dataset_info.json` is a file of one good row."""
    zone = folder / "team-a" / "bot"
    zone.mkdir(parents=True)
    name, _, suffix = bomb.name.rpartition(".")
    if name:
        bomb.make(zone / f"rows.{suffix}")
    else:
        (zone / "rows.jsonl").write_text(f"{ROW}}}\n")
        bomb.make(zone / "dataset_info.json")
    terms = Terms(
        stage="pt" if suffix in ("txt", "parquet") else "sft", train_on_prompt=False, holds_out=False
    )
    found = look_into(zone, folder, terms, LIMITS, most_rows=2 * LIMITS.rows)
    return "\n".join(map(str, found.mistakes))


def read_catalog(bomb: Bomb, folder: Path) -> str:
    bomb.make(folder / "a.yaml")
    with (folder / "a.yaml").open("rb") as file:
        try:
            return f"no mistake in {list(read_yaml(file).value)}"
        except YamlError as error:
            return str(error)


def read_web_ui(bomb: Bomb, folder: Path) -> str:
    bomb.make(folder / "a.json")
    return str(translate(json.loads((folder / "a.json").read_text())).problems)


def read_weights(bomb: Bomb, folder: Path) -> str:
    bomb.make(folder / "model.safetensors")
    return _refused(lambda: inspect(folder))


def read_configuration(bomb: Bomb, folder: Path) -> str:
    safetensors(tensors((0, 1)) + b"x", len(tensors((0, 1))))(folder / "model.safetensors")
    bomb.make(folder / "config.json")
    return _refused(lambda: inspect(folder))


def read_gguf_file(bomb: Bomb, folder: Path) -> str:
    bomb.make(folder / "a.gguf")
    return _refused(lambda: read_gguf(folder / "a.gguf"))


def render(bomb: Bomb, folder: Path) -> str:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    bomb.make(folder / "a.jinja")
    template = (folder / "a.jinja").read_text()
    try:
        bounded(
            lambda: ImmutableSandboxedEnvironment().from_string(template).render(),
            what="The template",
            remedy="Give another.",
            most_seconds=1,
        )
    except WorkerError as error:
        return str(error)
    return "rendered"


def _refused(read: Callable[[], object]) -> str:
    try:
        return f"taken: {read()}"
    except BaseModelSourceError as error:
        return str(error)


READERS: tuple[tuple[Callable[[Bomb, Path], str], tuple[Bomb, ...]], ...] = (
    (read_dataset, DATASETS),
    (read_catalog, CATALOG),
    (read_web_ui, WEB_UI),
    (read_weights, WEIGHTS),
    (read_configuration, CONFIGURATIONS),
    (read_gguf_file, GGUF),
    (render, TEMPLATES),
)


def all_bombs() -> Iterator[tuple[Callable[[Bomb, Path], str], Bomb]]:
    for read, bombs in READERS:
        for bomb in bombs:
            yield read, bomb


def main(folder: Path) -> None:
    import pyarrow.parquet  # noqa: F401  what makes the files is not measured

    for number, (read, bomb) in enumerate(all_bombs()):
        place = folder / str(number)
        place.mkdir()
        made = Bomb(bomb.name, lambda path, bomb=bomb: _made(bomb, path), bomb.said)  # type: ignore[misc]
        before = time.process_time()
        said = read(made, place)
        took = {"mib": (_peak_bytes() - STARTED["bytes"]) // MIB, "s": time.process_time() - before}
        print(
            json.dumps({"reader": read.__name__, "bomb": bomb.name, "said": said[:20_000], **took}),
            flush=True,
        )


STARTED = {"bytes": 0}


def _made(bomb: Bomb, path: Path) -> None:
    """Makes it in another process, and begins to measure."""
    child = os.fork()
    if child == 0:
        bomb.make(path)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    Path("/proc/self/clear_refs").write_text("5")
    STARTED["bytes"] = _peak_bytes()


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(BrokenPipeError):
        main(Path(sys.argv[1]))
