"""pip's settings reach uv, wherever they were set; what was set for uv itself wins."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resources.engines.package_indexes import (
    TORCH_CPU_INDEX,
    PackageIndexError,
    pip_settings,
    uv_environment,
    with_torch_index,
    without_credentials,
)
from tests.integration.engines.sites import make_wheel

UV = str(Path(sys.executable).with_name("uv"))


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment with nothing set for pip or uv, and a home of its own."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_")) and "proxy" not in k.lower()
    }
    return {
        **kept,
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / ".config"),
        "PIP_CONFIG_FILE": os.devnull,
    }


def configured(environ: dict[str, str], text: str) -> dict[str, str]:
    file = Path(environ["HOME"]) / "pip.conf"
    file.write_text(text)
    return {**environ, "PIP_CONFIG_FILE": str(file)}


def test_nothing_set_for_pip_adds_only_the_strategy(bare: dict[str, str]) -> None:
    assert set(uv_environment(environ=bare)) - set(bare) == {"UV_INDEX_STRATEGY"}


def test_every_setting_of_a_configuration_file_is_translated(
    bare: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", bare["HOME"])
    more = Path("~/more").expanduser()
    more.mkdir()
    environ = configured(
        bare,
        "[global]\n"
        "index-url = https://reader:s3cret@pypi.example.com/simple\n"
        "extra-index-url =\n    https://a.example.com/simple\n    https://b.example.com/simple\n"
        f"find-links = {bare['HOME']} ~/more /not/there https://files.example.com/\n"
        "trusted-host = a.example.com\n"
        "cert = /etc/company.pem\n"
        "client-cert = /etc/me.pem\n"
        "proxy = http://proxy.example.com:3128\n"
        "timeout = 90\n"
        "retries = 7\n"
        "no-index = true\n"
        "keyring-provider = subprocess\n",
    )
    found = uv_environment(environ=environ)
    assert found["UV_DEFAULT_INDEX"] == "https://reader:s3cret@pypi.example.com/simple"
    assert found["UV_INDEX"] == "https://a.example.com/simple https://b.example.com/simple"
    assert found["UV_FIND_LINKS"] == f"{bare['HOME']},{more},https://files.example.com/"
    assert found["UV_INSECURE_HOST"] == "a.example.com"
    assert found["SSL_CERT_FILE"] == "/etc/company.pem"
    assert found["SSL_CLIENT_CERT"] == "/etc/me.pem"
    assert found["HTTPS_PROXY"] == found["https_proxy"] == "http://proxy.example.com:3128"
    assert found["UV_HTTP_TIMEOUT"] == "90"
    assert found["UV_HTTP_RETRIES"] == "7"
    assert found["UV_NO_INDEX"] == "1"
    assert found["UV_KEYRING_PROVIDER"] == "subprocess"


@pytest.mark.parametrize("user", ["reader:s3cret", ":s3cret", "s3cret", "reader:s3@cret:s3cret"])
def test_what_is_told_holds_no_credentials(user: str) -> None:
    told = without_credentials(f"error: https://{user}@pypi.example.com/simple, file:///a@b: HTTP 403")
    assert told == "error: https://***@pypi.example.com/simple, file:///a@b: HTTP 403"


def test_settings_that_pip_cannot_read_are_told_without_credentials(bare: dict[str, str]) -> None:
    environ = configured(bare, "index-url = https://reader:s3cret@pypi.example.com/simple\n")
    with pytest.raises(PackageIndexError, match=r"\*\*\*@pypi\.example\.com") as told:
        uv_environment(environ=environ)
    assert "s3cret" not in str(told.value)


def test_a_variable_beats_the_section_of_install_and_that_beats_global(bare: dict[str, str]) -> None:
    environ = configured(
        bare, "[global]\nfind-links = /global\nproxy = p\n[install]\nfind-links = /install\n"
    )
    assert pip_settings(environ=environ)["find-links"] == "/install"
    environ["PIP_FIND_LINKS"] = "/variable"
    settings = pip_settings(environ=environ)
    assert (settings["find-links"], settings["proxy"]) == ("/variable", "p")


def test_what_was_set_for_uv_wins_under_its_older_names_too(bare: dict[str, str]) -> None:
    environ = {
        **bare,
        "PIP_INDEX_URL": "https://pip.example.com",
        "UV_INDEX_URL": "https://uv.example.com",
        "PIP_EXTRA_INDEX_URL": "https://pip.example.com/more",
        "UV_EXTRA_INDEX_URL": "https://uv.example.com/more",
        "PIP_FIND_LINKS": "/pip",
        "UV_FIND_LINKS": "/uv",
        "UV_INDEX_STRATEGY": "first-index",
    }
    found = uv_environment(environ=environ)
    assert "UV_DEFAULT_INDEX" not in found
    assert "UV_INDEX" not in found
    assert found["UV_FIND_LINKS"] == "/uv"
    assert found["UV_INDEX_STRATEGY"] == "first-index"


def test_without_pip_its_variables_still_count(bare: dict[str, str], tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    environ = {**bare, "PIP_INDEX_URL": "https://pip.example.com"}
    found = uv_environment(environ=environ, python=str(tmp_path / "bare" / "bin" / "python"))
    assert found["UV_DEFAULT_INDEX"] == "https://pip.example.com"


def test_pytorchs_index_is_added_only_where_the_wheel_is_not_found(
    bare: dict[str, str], tmp_path: Path
) -> None:
    make_wheel(tmp_path / "wheels", "torch", "2.13.0+cpu")
    (tmp_path / "index").mkdir()
    environ = {
        **bare,
        "UV_DEFAULT_INDEX": f"file://{tmp_path}/index",
        "UV_FIND_LINKS": str(tmp_path / "wheels"),
        "LLM_ASSETS_TORCH_INDEX": "https://mirror.example.com/cpu",
    }
    there = with_torch_index(environ, uv=UV, requirement="torch==2.13.0+cpu")
    missing = with_torch_index(environ, uv=UV, requirement="torch==2.14.0+cpu")
    assert "UV_INDEX" not in there
    assert missing["UV_INDEX"] == "https://mirror.example.com/cpu"


def test_pytorchs_own_index_is_the_default_and_comes_after_what_is_set(
    bare: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "index").mkdir()
    index = f"file://{tmp_path}/index"
    environ = {**bare, "UV_DEFAULT_INDEX": index, "UV_INDEX": index}
    found = with_torch_index(environ, uv=UV, requirement="torch==2.14.0+cpu")
    assert found["UV_INDEX"] == f"{index} {TORCH_CPU_INDEX}"


@pytest.mark.parametrize("setting", [{"LLM_ASSETS_TORCH_INDEX": ""}, {"UV_NO_INDEX": "1"}])
def test_no_index_of_pytorch_is_added_where_none_is_wanted(
    bare: dict[str, str], setting: dict[str, str]
) -> None:
    environ = {**bare, **setting}
    assert with_torch_index(environ, uv=UV, requirement="torch==2.13.0+cpu") == environ
