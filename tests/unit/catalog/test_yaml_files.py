import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.catalog.yaml_files import MOST_BYTES, Document, YamlError, read_yaml

# What may stand in a YAML file without an escape that JSON does not know.
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Zl", "Zp"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


def read(folder: Path, content: str | bytes) -> Document:
    path = folder / "file.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with path.open("rb") as file:
        return read_yaml(file)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-4", 0.0001),
        ("5.0e-05", 0.00005),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("12:30", "12:30"),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("2026-11-21", "2026-11-21"),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("-.inf", float("-inf")),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(tmp_path: Path, written: str, meant: Any) -> None:
    assert read(tmp_path, f"key: {written}\n").value == {"key": meant}


@given(value=st.dictionaries(TEXTS, VALUES, max_size=3))
def test_json_is_yaml_and_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]
) -> None:
    assert read(tmp_path_factory.mktemp("yaml"), json.dumps(value, ensure_ascii=False)).value == value


@given(content=st.binary(max_size=200))
def test_bytes_are_a_document_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    with suppress(YamlError):
        assert isinstance(read(tmp_path_factory.mktemp("yaml"), content).value, dict)


def test_every_field_has_its_line(tmp_path: Path) -> None:
    document = read(tmp_path, "# a comment\na: 1\nb:\n  c:\n    - x\n    - y\n")
    assert document.line(("a",)) == 2
    assert document.line(("b", "c", 1)) == 6
    assert document.line(("b", "missing")) == 3
    assert document.line(("missing",)) == 2


def test_a_key_that_comes_twice_is_a_mistake_and_the_first_counts(tmp_path: Path) -> None:
    document = read(tmp_path, "a: 1\nb: 2\na: 3\n")
    assert document.value == {"a": 1, "b": 2}
    assert [(problem.line, problem.field, problem.problem) for problem in document.problems] == [
        (3, "a", "the key comes twice")
    ]


def test_an_object_tag_is_a_mistake_and_runs_nothing(tmp_path: Path) -> None:
    document = read(tmp_path, "a: !!python/object/apply:os.system [exit 1]\nb: !!python/name:os.system x\n")
    assert document.value["b"] is None
    assert "python/name" in document.problems[-1].problem


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ("", 1, "empty"),
        ("- a\n", 1, "not a mapping"),
        ("a: 1\nb: c: d\n", 2, "not YAML: mapping values are not allowed"),
        ("a: 1\n---\nb: 2\n", 2, "not YAML"),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        ("a: &a [*a]\n", 1, "an alias that holds itself"),
        ("a: " + "[" * 60 + "]" * 60, 1, "more than 50 deep"),
        ("b: 1\na: " + "[" * 400_000, 2, "more than 50 deep"),
        ("a:\n" + "- " * 400_000, 2, "more than 50 deep"),
        ("? " * 300_000, 1, "more than 50 deep"),
        ("\n".join(" " * depth + "a:" for depth in range(1200)), 51, "more than 50 deep"),
    ],
)
def test_what_is_not_a_files_yaml_names_the_line(
    tmp_path: Path, content: str | bytes, line: int, problem: str
) -> None:
    with pytest.raises(YamlError, match=problem) as caught:
        read(tmp_path, content)
    assert caught.value.line == line


def test_a_bomb_of_aliases_is_refused(tmp_path: Path) -> None:
    levels = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    levels += [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in pairwise("abcdefgh")]
    with pytest.raises(YamlError, match="too much"):
        read(tmp_path, "\n".join(levels))


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(YamlError, match="bytes"):
        read(tmp_path, "a: " + "x" * MOST_BYTES)
