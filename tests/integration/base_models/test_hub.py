"""Fetching from a hub: a real server on this machine that speaks as much of the hub's API as is used."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resources.base_models.sources import BaseModelSourceError, fetch, inspect
from tests.servers.hub import Hub
from tests.unit.base_models.conftest import COMMIT, REPOSITORY, TOKEN, gguf, safetensors, sha256

SOURCE = f"hf://{REPOSITORY}@{COMMIT}"


def fetched(cache: Path, source: str = SOURCE, sha256: str | None = None) -> Path:
    return fetch(source, sha256=sha256, cache=cache).path


def test_a_revision_becomes_a_folder_without_pickles_code_and_other_formats(hub: Hub, tmp_path: Path) -> None:
    hub.files |= {
        "pytorch_model.bin": b"x",
        "modeling.py": b"x",
        "training_args.bin": b"x",
        "onnx/model.json": b"{}",
        "consolidated.safetensors": b"x",
        "LICENSE": b"Apache License",
    }
    found = fetch(SOURCE, sha256=None, cache=tmp_path)
    names = {path.name for path in found.path.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "README.md", "LICENSE"}
    assert (found.kind, found.fingerprint) == ("folder", f"{REPOSITORY}@{COMMIT}")
    facts = inspect(found.path)
    assert (facts.architecture, facts.parameters, facts.licence) == (
        "LlamaForCausalLM",
        150_000,
        "apache-2.0",
    )


def test_what_is_in_the_cache_is_not_fetched_again_even_offline(hub: Hub, tmp_path: Path) -> None:
    first = fetched(tmp_path)
    asked = len(hub.requests)
    hub.server.shutdown()
    assert fetched(tmp_path) == first
    assert len(hub.requests) == asked


def test_a_dropped_connection_is_taken_up_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    hub.files["model.safetensors"] = safetensors(a=bytes(25_000_000))
    hub.cut_after = 15_000_000
    folder = fetched(tmp_path)
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    first, second = hub.downloads("model.safetensors")
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").rstrip("-")) >= 10_000_000


def test_a_later_fetch_takes_up_after_the_last_whole_file(hub: Hub, tmp_path: Path) -> None:
    tokenizer = hub.files.pop("tokenizer.json")
    hub.listed = [*hub.files, "tokenizer.json"]
    with pytest.raises(BaseModelSourceError, match="cannot be had from"):
        fetched(tmp_path)
    assert not list((tmp_path / "hub").glob(f"*@{COMMIT}"))
    (partial,) = (tmp_path / "hub").iterdir()
    (partial / ".cache" / "left.incomplete").write_bytes(b"a part that a killed process left")
    hub.files["tokenizer.json"] = tokenizer
    assert {path.name for path in fetched(tmp_path).iterdir()} == set(hub.files)
    assert len(hub.downloads("model.safetensors")) == 1


def test_other_bytes_than_the_hub_announced_are_refused_and_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.lie = True
    content = hub.files["model.safetensors"]
    with pytest.raises(BaseModelSourceError, match=rf"came with sha256 .*, the hub says {sha256(content)}"):
        fetched(tmp_path)
    assert not list((tmp_path / "hub").glob(f"*@{COMMIT}"))
    hub.lie = False
    assert (fetched(tmp_path) / "model.safetensors").read_bytes() == content


def test_two_fetches_of_one_revision_download_it_once(hub: Hub, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: fetched(tmp_path), range(4)))
    assert len(folders) == 1
    assert len(hub.downloads("model.safetensors")) == 1


def test_a_revision_with_pickles_only_is_refused_before_the_download(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    hub.files["pytorch_model.bin"] = b"x"
    with pytest.raises(
        BaseModelSourceError, match=r"has no safetensors weights \(it has .*pytorch_model\.bin"
    ):
        fetched(tmp_path)
    assert not hub.downloads("config.json")


def test_the_token_opens_a_private_repository_and_is_never_told(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hub.token = TOKEN
    with pytest.raises(BaseModelSourceError, match="set HF_TOKEN"):
        fetched(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN + "_of_another")
    with pytest.raises(BaseModelSourceError) as caught:
        fetched(tmp_path)
    assert TOKEN not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetched(tmp_path).exists()
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"hf://acme/other@{COMMIT}", "Check its name; if it is private, set HF_TOKEN"),
        (f"hf://{REPOSITORY}@{'f' * 40}", "Check the commit"),
        (f"gguf:hf://{REPOSITORY}@{COMMIT}/none.gguf", r"has no file none\.gguf; it has none such"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub: Hub, tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(BaseModelSourceError, match=message):
        fetched(tmp_path, source)


def test_a_hub_that_cannot_be_reached_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.server.shutdown()
    hub.server.server_close()
    with pytest.raises(BaseModelSourceError, match=rf"cannot be had from {hub.url}.*HF_ENDPOINT"):
        fetched(tmp_path)


def test_a_gguf_file_of_a_hub_is_checked_and_kept(hub: Hub, tmp_path: Path) -> None:
    hub.files["tiny.gguf"] = gguf()
    source = f"gguf:hf://{REPOSITORY}@{COMMIT}/tiny.gguf"
    found = fetch(source, sha256=sha256(gguf()), cache=tmp_path)
    assert (found.kind, found.fingerprint, found.path.read_bytes()) == ("gguf", sha256(gguf()), gguf())
    assert fetched(tmp_path, source, sha256(gguf())) == found.path
    assert len(hub.downloads("tiny.gguf")) == 1
    with pytest.raises(
        BaseModelSourceError, match=rf"has sha256 {sha256(gguf())}, the catalog says {'0' * 64}"
    ):
        fetched(tmp_path, source, "0" * 64)


def test_a_truncated_gguf_of_a_hub_is_refused_and_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.files["tiny.gguf"] = gguf()[:-1]
    with pytest.raises(BaseModelSourceError, match="it is truncated"):
        fetched(tmp_path, f"gguf:hf://{REPOSITORY}@{COMMIT}/tiny.gguf")
    assert not list((tmp_path / "hub").rglob("*.gguf"))


def test_a_server_that_is_no_hub_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.listed = []
    with pytest.raises(BaseModelSourceError, match="does not speak the hub's API; check HF_ENDPOINT"):
        fetched(tmp_path)
