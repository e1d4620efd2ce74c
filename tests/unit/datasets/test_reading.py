"""Files of every kind, whole and broken: which rows they have, and where it says that something is wrong."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from llm_assets.datasets.json_document import Document, NotTextError
from llm_assets.datasets.json_rows import REST_UNREAD, _listed_rows, _objects
from llm_assets.datasets.landing_zone import opened_landing_zone
from llm_assets.datasets.limits import Limits
from llm_assets.datasets.mistakes import DatasetError, Mistakes
from llm_assets.datasets.reading import read_rows, survey
from tests.unit.datasets.conftest import USUAL

TEXT = some.text(some.characters(exclude_categories=["Cs"]), max_size=30)
ROWS = some.lists(some.fixed_dictionaries({"instruction": TEXT, "output": TEXT}), min_size=1, max_size=8)
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)


def rows(path: Path, limits: Limits = USUAL) -> list[tuple[int, dict[str, Any]]]:
    mistakes = Mistakes()
    with opened_landing_zone(path.parent, path.parent, limits) as zone:
        found = list(read_rows(zone, path, mistakes))
    mistakes.refuse()
    return found


def refused(path: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        rows(path)
    return str(caught.value)


@one_folder
@given(written=ROWS, line_end=some.sampled_from(["\n", "\r\n", "\n\n"]))
def test_json_lines_come_back_as_written(
    tmp_path: Path, written: list[dict[str, str]], line_end: str
) -> None:
    path = tmp_path / "rows.jsonl"
    text = line_end.join(json.dumps(row, ensure_ascii=False) for row in written)
    path.write_bytes(text.encode())
    assert [row for _, row in rows(path)] == written


@one_folder
@given(written=ROWS, indent=some.sampled_from([None, 0, 2]))
def test_a_json_list_comes_back_as_written(
    tmp_path: Path, written: list[dict[str, str]], indent: int | None
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(written, indent=indent))
    assert [row for _, row in rows(path)] == written


class Pieces(io.BytesIO):
    """A file that gives a few bytes at a time, so that every value lies across the end of a window."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(content)
        self._size = size

    def read(self, _most: int | None = -1) -> bytes:
        return super().read(self._size)


def read_in_pieces(content: bytes, size: int) -> tuple[list[Any], list[Any]]:
    """The rows with their lines, and the mistakes, of a document that comes in pieces of this size."""
    mistakes, document = Mistakes(), Document(Pieces(content, size), USUAL)
    found: list[Any] = []
    try:
        read = _listed_rows if document.take("[") else _objects
        found = list(read(Path("rows.json"), document, mistakes))
    except NotTextError as error:
        return [], [(error.line, f"{error}; {REST_UNREAD}")]
    return found, [(each.line, each.problem) for each in mistakes._kept]


@settings(max_examples=150)
@given(
    written=ROWS,
    indent=some.sampled_from([None, 0, 2]),
    listed=some.booleans(),
    size=some.integers(1, 9),
    cut=some.integers(0, 60),
    spoiled=some.integers(0, 200),
)
def test_a_document_reads_the_same_in_pieces_of_any_size(
    written: list[dict[str, str]], indent: int | None, listed: bool, size: int, cut: int, spoiled: int
) -> None:
    """Rows, lines and mistakes, also of one that is cut or has a wrong byte in it."""
    rows = [row | {"é": [1, 2.5, None, True]} for row in written]
    texts = [json.dumps(row, indent=indent, ensure_ascii=False) for row in rows]
    content = (f"[{', '.join(texts)}]" if listed else " ".join(texts)).encode()
    whole = read_in_pieces(content, 1 << 20)
    assert ([row for _, row in whole[0]], whole[1]) == (rows, [])
    assert read_in_pieces(content, size) == whole
    broken = content[: len(content) - cut]
    broken = broken[:spoiled] + b"\xff" + broken[spoiled + 1 :] if spoiled < len(broken) else broken
    in_pieces = read_in_pieces(broken, size)
    assert in_pieces[1] == read_in_pieces(broken, 1 << 20)[1]


@one_folder
@given(written=ROWS)
def test_csv_comes_back_as_written(tmp_path: Path, written: list[dict[str, str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["instruction", "output"], quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(written)
    path = tmp_path / "rows.csv"
    path.write_bytes(text.getvalue().encode())
    assert [row for _, row in rows(path)] == written


def test_parquet_comes_back_as_written_with_row_numbers(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    written = [{"messages": [{"role": "user", "content": f"{i}"}], "system": None} for i in range(2500)]
    parquet.write_table(pyarrow.Table.from_pylist(written), tmp_path / "rows.parquet")
    assert rows(tmp_path / "rows.parquet") == list(enumerate(written, 1))


def test_the_line_of_a_row_is_where_it_starts(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b'\xef\xbb\xbfinstruction,output\r\n"two\r\nlines","with ""quotes"""\r\n\r\nlast,one\r\n'
    )
    assert rows(path) == [
        (2, {"instruction": "two\r\nlines", "output": 'with "quotes"'}),
        (5, {"instruction": "last", "output": "one"}),
    ]
    listed = tmp_path / "rows.json"
    listed.write_text('[\n  {"a": 1},\n\n  {"a":\n 2}, {"a": 3}\n]\n')
    assert [line for line, _ in rows(listed)] == [2, 4, 5]


def test_json_lines_in_a_json_file_and_a_list_in_a_jsonl_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "lines.json").write_text('\n{"a": "1"}\n{"a": "2"}\n')
    (tmp_path / "list.jsonl").write_text(' [{"a": "1"}, {"a": "2"}]')
    assert [row for _, row in rows(tmp_path / "lines.json")] == [{"a": "1"}, {"a": "2"}]
    assert [row for _, row in rows(tmp_path / "list.jsonl")] == [{"a": "1"}, {"a": "2"}]


def test_a_survey_knows_columns_that_only_later_rows_have(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    with opened_landing_zone(tmp_path, tmp_path, Limits()) as zone:
        assert survey(zone, tmp_path / "rows.jsonl", Mistakes()) == (("a", "b"), {"a": 1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": }\n', "rows.jsonl:2: is not JSON: Expecting value (column 7)"),
        (b'{"a": 1}\n{"a": "half a ro', "rows.jsonl:2: the last line stops in the middle of a row"),
        (b'{"a": 1}{"a": 2}\n', "rows.jsonl:1: is not JSON: something follows the object"),
        (b'{"a": 1, "a": 2}\n', "rows.jsonl:1: the key 'a' comes twice"),
        (b'{"b": {"a": 1, "a": 2}}\n', "rows.jsonl:1: the key 'a' comes twice"),
        (b'{"a": NaN}\n', "rows.jsonl:1: NaN is not JSON"),
        (b'"a"\n', "rows.jsonl:1: the row is not a JSON object"),
        (b'{"a": 1}\n\n{"a": "\xff"}\n', "rows.jsonl:3: byte 17 of the file (0xff) is not UTF-8"),
        (b'\xef\xbb\xbf{"a": "\xff"}\n', "rows.jsonl:1: byte 10 of the file (0xff) is not UTF-8"),
        ('{"a": 1}\n'.encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
        (b'{"a": ' + b"[" * 100_000 + b"\n", "rows.jsonl:1: is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}\n", "rows.jsonl:1: is not JSON: Exceeds the limit"),
    ],
)
def test_broken_json_lines_are_refused_with_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    assert message in refused(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[\n{"a": 1},\n{"a": }\n]', "rows.json:3: is not JSON: Expecting value"),
        ('[\n{"a": 1}\n{"a": 2}\n]', "rows.json:2: a comma is missing after this row"),
        ('[\n{"a": 1},\n{"a": 2}', "rows.json:3: the list has no end"),
        ('[\n{"a": 1},\n{"a', "rows.json:3: the list has no end"),
        ('[\n{"a": 1},\n', "rows.json:3: the list has no end"),
        ('[\n{"a": 1}\n]\n{}', "something follows the list"),
        ('[\n["a"]\n]', "rows.json:2: the row is not a JSON object"),
        ('[\n{"a": Infinity}\n]', "rows.json:2: Infinity is not JSON"),
        ('{\n  "a": 1\n}\n{\n  "a": oh\n}', "rows.json:5: is not JSON"),
        ('{\n  "a": 1,\n  "a": 2\n}', "rows.json:1: the key 'a' comes twice"),
        ('{\n  "data": [\n  {"a": 1},\n  ["a"]\n]}', "rows.json:4: the row is not a JSON object"),
        ('{\n  "data": [\n  {"a": 1}', "rows.json:3: the last object has no end"),
    ],
)
def test_broken_json_lists_are_refused_with_the_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "rows.json").write_text(content)
    assert message in refused(tmp_path / "rows.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'a,b\n1,2\n"open,2\n3,4\n', "rows.csv:3: is not CSV"),
        (b'a,b\n"x"y,2\n', "rows.csv:2: is not CSV"),
        (b"a,b\n1\n", "rows.csv:2: has 1 values, the header 2"),
        (b"a;b\n1;2\n", "rows.csv:1: the columns are not separated by commas"),
        (b"a,a\n1,2\n", "rows.csv:1: a column comes twice"),
        (b"a,b\n1,\xe9\n", "rows.csv:2: byte 6 of the file (0xe9) is not UTF-8"),
    ],
)
def test_broken_csv_is_refused_with_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    assert message in refused(tmp_path / "rows.csv")


def test_a_long_text_in_csv_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n" + "x" * 500_000 + ",y\n")
    assert len(rows(tmp_path / "rows.csv")[0][1]["a"]) == 500_000


def test_truncated_parquet_is_refused(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"a": "b" * 1000}]), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "the file is no whole Parquet file" in refused(path)


def test_a_parquet_file_with_a_text_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    offsets = pyarrow.array([0, 2], pyarrow.int32()).buffers()[1]
    text = pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, offsets, pyarrow.py_buffer(b"\xffa")])
    parquet.write_table(pyarrow.table({"text": text}), tmp_path / "rows.parquet")
    with pytest.raises(DatasetError, match=r"rows\.parquet:1: .*can.t decode byte 0xff"):
        rows(tmp_path / "rows.parquet")
