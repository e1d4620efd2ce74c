"""Every file that somebody else writes: refused by its own error, or read; never anything else.

A reader that ends in another exception ends what reads it: the collector, the code location, a run.
"""

import io
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_assets.catalog.loading import load_catalog
from llm_assets.catalog.mistakes import CatalogError
from llm_assets.datasets.checking import Terms, look_into
from llm_assets.datasets.limits import Limits
from llm_assets.identifiers_file import read_identifiers
from resources.artifact_store.artifacts import (
    Artifact,
    ArtifactError,
    ArtifactFile,
    Line,
    manifest_text,
    parse_manifest,
)
from resources.audit.places import AuditError
from resources.personal_data.detector import Detector
from tests.catalogs import model
from tests.conftest import ROOT
from tests.fuzz.soups import JSON_PIECES, changed, soup
from tests.unit.audit.conftest import Log

EXAMPLES = settings().max_examples  # of the profile that runs
YAML_SIGNS = (
    b"\n",
    b"  ",
    b"- ",
    b": ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"'",
    b'"',
    b"|\n",
    b">-\n",
    b"# ",
    b"\t",
    b"? ",
)
YAML_WORDS = (
    b"a: 1\n",
    b"name: ",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!python/none ",
    b"---\n",
    b"...\n",
    b"~",
    b"no",
    b"1e-4",
)
YAML_PIECES = (*YAML_SIGNS, *YAML_WORDS, b"0x10", b"\xff", b"\xc2\x85")


CATALOG = ROOT / "catalog"
CATALOG_FILES = sorted(
    path.relative_to(CATALOG)
    for kind in ("base_models", "models", "tenants")
    for path in (CATALOG / kind).iterdir()
)


@st.composite
def catalog_changes(draw: st.DrawFn) -> tuple[Path, bytes]:
    file = draw(st.sampled_from(CATALOG_FILES))
    good = (CATALOG / file).read_bytes()
    return file, draw(changed(good, YAML_PIECES) | soup(YAML_PIECES))


@given(change=catalog_changes())
def test_a_catalog_is_read_or_its_mistakes_are_listed(change: tuple[Path, bytes]) -> None:
    file, content = change
    load_with(file, content)


SOME_FIELDS = (
    "thresholds",
    "card",
    "known_questions",
    "lora_rank",
    "learning_rate",
    "cutoff_len",
    "max_model_len",
    "template",
)
FIELDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data())
def test_any_value_in_any_field_of_a_model_is_a_mistake_or_taken(data: st.DataObject) -> None:
    said: dict[str, Any] = model("smollm2_135m_instruct")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from([said, said["recipe"], said["serving"]]))
        name = data.draw(st.sampled_from([*place, *SOME_FIELDS]) | st.text(max_size=8))
        if place is not said or name not in ("recipe", "serving"):
            place[name] = data.draw(FIELDS)
    load_with(Path("models/support_bot.yaml"), yaml.safe_dump(said, allow_unicode=True).encode())


def load_with(file: Path, content: bytes) -> None:
    """The project's own catalog with one other file: it is read, or all that is wrong is listed."""
    with tempfile.TemporaryDirectory() as made:
        for path in CATALOG_FILES:
            (Path(made) / path).parent.mkdir(exist_ok=True)
            (Path(made) / path).write_bytes((CATALOG / path).read_bytes())
        (Path(made) / file).write_bytes(content)
        with suppress(CatalogError):
            load_catalog(Path(made))


ROWS = [
    {"instruction": "Who are you?", "input": "", "output": "A bot."},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "tools": "[]"},
    {"text": "some text"},
]
INFO = json.dumps(
    {
        "rows": {
            "file_name": "rows.jsonl",
            "formatting": "alpaca",
            "columns": {"prompt": "instruction", "response": "output"},
        }
    }
).encode()


def parquet() -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS[:1] * 3), written)
    return written.getvalue()


GOOD_ROW = st.sampled_from(ROWS).map(lambda row: json.dumps(row).encode() + b"\n")
FILES = {
    "rows.jsonl": GOOD_ROW.flatmap(lambda row: changed(row * 3, JSON_PIECES)) | soup(JSON_PIECES) | GOOD_ROW,
    "rows.json": changed(json.dumps(ROWS[:1] * 2).encode(), JSON_PIECES) | soup(JSON_PIECES),
    "rows.csv": changed(b'instruction,output\n"a","c ""d"""\n', (b",", b'"', b"\n", b"\r", b"\x00", b"\xff")),
    "rows.txt": st.binary(max_size=60),
    "dataset_info.json": changed(INFO, JSON_PIECES) | soup(JSON_PIECES) | st.just(INFO),
}


@given(
    files=st.fixed_dictionaries({}, optional=FILES),
    stage=st.sampled_from(["sft", "dpo", "kto", "pt", "rm"]),
    learns_all=st.booleans(),
)
def test_a_landing_zone_is_read_or_its_mistakes_are_listed(
    files: dict[str, bytes], stage: str, learns_all: bool
) -> None:
    with tempfile.TemporaryDirectory() as made:
        zone = Path(made) / "team-a" / "bot"
        zone.mkdir(parents=True)
        for name, content in files.items():
            (zone / name).write_bytes(content)
        found = look_into(
            zone, Path(made), Terms(stage=stage, train_on_prompt=learns_all, holds_out=True), Limits()
        )
        assert len(found.mistakes) <= found.total


@settings(max_examples=EXAMPLES // 5)  # each starts a process that loads Arrow
@given(content=changed(parquet(), (b"\x00", b"\xff", b"PAR1", b"\x15\x02", b"\x7f" * 4), most=3))
def test_a_damaged_parquet_file_is_read_or_told(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as made:
        zone = Path(made) / "team-a" / "bot"
        zone.mkdir(parents=True)
        (zone / "rows.parquet").write_bytes(content)
        terms = Terms(stage="sft", train_on_prompt=False, holds_out=True)
        look_into(zone, Path(made), terms, Limits(memory_bytes=2**30))


LINE, VERSION = Line(collection="models", tenant="team-a", name="bot"), "v1"
ARTIFACT = Artifact(
    line=LINE,
    version=VERSION,
    files=(ArtifactFile(path="model.safetensors", size_bytes=3, sha256="a" * 64),),
    attributes={"base": "x", "rows": 3},
)


@given(text=changed(manifest_text(ARTIFACT).encode(), JSON_PIECES) | soup(JSON_PIECES))
def test_a_manifest_is_the_one_that_was_written_or_none(text: bytes) -> None:
    with suppress(ArtifactError):
        assert parse_manifest(LINE, VERSION, text, place="manifest.json") == ARTIFACT


EVENT = json.dumps(
    {
        "e": "request",
        "id": "i",
        "at": 1.5,
        "tenant": "team-a",
        "key": "k",
        "actor": "a",
        "risk_class": "high",
        "input": "x",
    }
).encode()
END = json.dumps({"e": "response", "id": "i", "at": 2.5, "status": 200, "output": "y", "ms": 3}).encode()


@settings(max_examples=EXAMPLES // 4)  # each makes a log, with its syncs
@given(
    lines=st.lists(
        changed(EVENT, JSON_PIECES)
        | changed(END, JSON_PIECES)
        | soup(JSON_PIECES)
        | st.just(EVENT)
        | st.just(END),
        max_size=6,
    )
)
def test_whatever_stands_in_the_spool_is_sealed_into_a_log_without_a_fault(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as made:
        log = Log(Path(made))
        try:
            for line in lines:
                log.spool.write_bytes(line.replace(b"\n", b" ") + b"\n")
            log.collect()
            for tenant in ("team-a", "_platform"):
                assert not log.places.log(tenant).is_dir() or not log.faults(tenant)
            assert not log.collect(), "what is sealed is not read again"
        finally:
            log.close()


@given(
    content=soup(YAML_PIECES) | changed(b"A_B:\n  name: a\n  sure: ['####-@@']\n  check: luhn\n", YAML_PIECES)
)
def test_a_file_of_identifiers_is_read_or_its_mistake_is_told(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        with suppress(AuditError):
            for identifier in read_identifiers(Path(file.name)):
                list(identifier.find("1234 ab", "1234 ab"))


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@given(text=st.text(max_size=200), about=st.text(max_size=20))
def test_any_text_is_looked_through_and_what_is_found_lies_in_it(
    detector: Detector, text: str, about: str
) -> None:
    for each in detector.find(text, about):
        assert 0 <= each.start < each.end <= len(text)
