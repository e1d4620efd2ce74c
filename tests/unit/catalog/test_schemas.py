import json
from io import BytesIO
from pathlib import Path

import pytest

from llm_assets.catalog.arguments import arguments
from llm_assets.catalog.platform_keys import PLATFORM_KEYS
from llm_assets.catalog.schemas import as_text, schemas
from llm_assets.catalog.yaml_files import read_yaml

CATALOG = Path(__file__).parents[3] / "catalog"
jsonschema = pytest.importorskip("jsonschema")


@pytest.mark.parametrize("name", sorted(schemas()))
def test_the_committed_schema_is_current(name: str) -> None:
    committed = (CATALOG / "schemas" / name).read_text(encoding="utf-8")
    assert committed == as_text(schemas()[name]), "run: python -m llm_assets.catalog.schemas"


@pytest.mark.parametrize("name", sorted(schemas()))
def test_a_schema_is_a_valid_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schemas()[name])


@pytest.mark.parametrize(
    "file", [file.relative_to(CATALOG) for file in sorted(CATALOG.glob("*/*.yaml"))], ids=str
)
def test_the_demo_names_its_schema_and_obeys_it(file: Path) -> None:
    path = CATALOG / file
    first_line = path.read_text(encoding="utf-8").splitlines()[0]
    schema = path.parent / first_line.removeprefix("# yaml-language-server: $schema=")
    jsonschema.validate(
        read_yaml(BytesIO(path.read_bytes())).value, json.loads(schema.read_text(encoding="utf-8"))
    )


def test_editors_complete_every_recipe_key_and_no_key_of_the_platforms() -> None:
    recipe = schemas()["model.schema.json"]["properties"]["recipe"]
    assert set(recipe["properties"]) == arguments().keys() - PLATFORM_KEYS
    assert recipe["additionalProperties"] is False


def test_every_platform_key_is_an_argument_of_llama_factory() -> None:
    assert arguments().keys() >= PLATFORM_KEYS
