"""Where settings come from, which of several counts, and what is said about one that cannot be used."""

import json
import os
from pathlib import Path

import jsonschema
import pytest

from llm_assets.cli.config import config
from llm_assets.installation.files import MASK, SettingsError, masked
from llm_assets.installation.settings import Settings, find_settings
from llm_assets.installation.table import page, schema, schema_text, settings_table
from tests.conftest import ROOT

REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without settings, which the environment names."""
    for name in [name for name in os.environ if name.startswith("LLM_ASSETS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LLM_ASSETS_ROOT", str(tmp_path))
    (tmp_path / "catalog").mkdir()
    return tmp_path


def file(root: Path, text: str) -> Path:
    path = root / "installation.yaml"
    path.write_text(text)
    return path


def test_the_environment_counts_before_the_file_and_the_file_before_the_default(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file(root, "# ours\nui_port: 4000\nmlflow_port: 6000\n")
    monkeypatch.setenv("LLM_ASSETS_UI_PORT", "4001")
    settings = find_settings()
    assert (settings.ui_port, settings.mlflow_port, settings.gateway_port) == (4001, 6000, 8080)
    origins = {each.name: each.origin for each in settings_table(settings)}
    assert origins["ui_port"] == "environment"
    assert origins["mlflow_port"] == "installation.yaml:3"
    assert origins["gateway_port"] == "default"


def test_a_setting_is_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = find_settings()
    monkeypatch.setenv("LLM_ASSETS_STORE", "gs://elsewhere")
    file(root, "ui_port: 4000")
    assert settings.store_url == f"file:{root}/.llm-assets/store"
    assert settings.ui_port == 3000


def test_paths_in_the_file_are_relative_to_it_and_sizes_may_be_fractions(root: Path) -> None:
    file(
        root, "home: state\ngateway_key: tls/key.pem\nstore: gs://models\ncache_gib: 0.5\naudit_ner: [a, b]\n"
    )
    settings = find_settings()
    assert (settings.home, settings.gateway_key) == (root / "state", root / "tls" / "key.pem")
    assert (settings.artifact_cache_bytes, settings.audit_ner) == (2**29, ("a", "b"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("stor: gs://models", "installation.yaml:2: stor: 'gs://models' is no setting; did you mean store"),
        ("ui_port: many", "installation.yaml:2: ui_port: 'many' is not a port; a number from 1 to 65535 is"),
        (
            "order_hours: -1",
            "installation.yaml:2: order_hours: -1 is not a size; a positive number such as 336",
        ),
        ("domain: 3", "installation.yaml:2: domain: 3 is not taken: input should be a valid string"),
        ("audit_stdout: x", "installation.yaml:2: audit_stdout: 'x' is not taken: input should be 'google'"),
        ("domain: a\ndomain: b", "installation.yaml:3: domain: the key comes twice; keep one"),
        ("domain: [", "installation.yaml:3: not YAML"),
        ("root: elsewhere", "installation.yaml:2: root does nothing: it is where this file lies"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line_and_what_would_do(
    root: Path, line: str, said: str
) -> None:
    file(root, f"# ours\n{line}\n")
    with pytest.raises(SettingsError) as refused:
        find_settings()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_mistake_is_said_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(root, "ui_port: 0\n")
    monkeypatch.setenv("LLM_ASSETS_MLFLOW_PORT", "x")
    with pytest.raises(SettingsError, match=r"(?s)yaml:1: ui_port: 0 .*LLM_ASSETS_MLFLOW_PORT='x'|x.*yaml:1"):
        find_settings()


def test_an_unknown_variable_is_refused_with_the_one_that_was_meant(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_ASSETS_GATEWAY_PROT", "80")
    with pytest.raises(
        SettingsError, match="LLM_ASSETS_GATEWAY_PROT is no setting; did you mean gateway_port"
    ):
        find_settings()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"CACHE_GIB": "5"}, "LLM_ASSETS_CACHE_GIB does nothing: .* Set LLM_ASSETS_CACHE as well"),
        ({"MLFLOW_URL": "http://m", "MLFLOW_PORT": "1"}, "LLM_ASSETS_MLFLOW_PORT does nothing"),
        ({"MLFLOW_TOKEN_FILE": __file__}, "LLM_ASSETS_MLFLOW_TOKEN_FILE does nothing"),
    ],
)
def test_a_setting_that_does_nothing_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"LLM_ASSETS_{name}", value)
    with pytest.raises(SettingsError, match=said):
        find_settings()


def test_a_password_in_an_address_is_refused_and_not_repeated(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_ASSETS_MLFLOW_URL", "https://me:hunter2@mlflow")
    with pytest.raises(SettingsError, match=f"https://{MASK}@mlflow.* is not a server's address"):
        find_settings()


def test_the_env_file_reaches_settings_and_libraries_and_yields_to_the_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "LLM_ASSETS_UI_PORT"):  # so that they are gone after the test
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("LLM_ASSETS_MLFLOW_PORT", "6001")
    lines = (
        "\n# secrets\nHF_TOKEN='hf_$ecret'\n\nexport LLM_ASSETS_UI_PORT=4000\nLLM_ASSETS_MLFLOW_PORT=6000\n"
    )
    (root / ".env").write_text(lines)
    settings = find_settings()
    assert (settings.ui_port, settings.mlflow_port) == (4000, 6001)
    assert os.environ["HF_TOKEN"] == "hf_$ecret"
    origins = {each.name: each.origin for each in settings_table(settings)}
    assert (origins["ui_port"], origins["mlflow_port"]) == (".env:5", "environment")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("LLM_ASSETS_UI_PROT=1", r"\.env:1: LLM_ASSETS_UI_PROT is no setting; did you mean ui_port"),
        ("LLM_ASSETS_UI_PORT=x", r"\.env:1: LLM_ASSETS_UI_PORT='x' is not a port"),
        ("LLM_ASSETS_ROOT=/x", r"\.env:1: LLM_ASSETS_ROOT does nothing"),
        ("'unfinished", r"\.env:1: write `NAME=value`"),
    ],
)
def test_a_mistake_in_the_env_file_is_named_with_its_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    name = line.partition("=")[0]
    if name != "LLM_ASSETS_ROOT" and "=" in line:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (root / ".env").write_text(f"{line}\n")
    with pytest.raises(SettingsError, match=said):
        find_settings()


def test_the_reference_page_and_the_schema_are_made_from_the_table() -> None:
    text = (REFERENCE / "settings.md").read_text(encoding="utf-8")
    made = "run: python -m llm_assets.installation.table"
    assert page(text) == text, made
    assert (REFERENCE / "installation.schema.json").read_text(encoding="utf-8") == schema_text(), made


def test_the_schema_takes_what_is_taken_and_refuses_what_is_refused() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(
        {"store": "gs://models", "cache_gib": 0.5, "ui_port": 4000, "audit_ner": ["a"]}, schema()
    )
    for wrong in ({"stor": "x"}, {"ui_port": 0}, {"cache_gib": "much"}, {"root": "x"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema())


def test_the_command_prints_every_setting_and_no_secret(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLM_ASSETS_LOKI_URL", "https://me:hunter2@loki.example.com")
    file(root, "signer: pkcs11:token=ours;object=k?pin-value=hunter2\n")
    config("json")
    printed = capsys.readouterr().out
    found = {each["name"]: each for each in json.loads(printed)}
    assert found.keys() == {"root", *schema()["properties"]}
    assert all(each["what"] for each in found.values())
    assert found["loki_url"]["value"] == f"https://{MASK}@loki.example.com"
    assert found["signer"]["origin"] == "installation.yaml:1"
    config("table")
    table = capsys.readouterr().out
    assert "hunter2" not in printed + table
    assert all(name in table for name in found)
    config("schema")
    assert json.loads(capsys.readouterr().out) == schema()


def test_what_is_no_secret_is_shown_whole() -> None:
    assert masked("https://mlflow.example.com/a@b?x=1") == "https://mlflow.example.com/a@b?x=1"


def test_settings_can_be_given_whole(tmp_path: Path) -> None:
    assert Settings(root=tmp_path, home=tmp_path / "h", store_url="gs://m").keys == tmp_path / "h" / "keys"
