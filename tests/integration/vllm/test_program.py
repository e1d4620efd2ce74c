"""The command, environment and fingerprint of a server, and what its log says."""

import json
from pathlib import Path
from typing import Any

import pytest

from resources.seams.serving import Serving, ServingError
from resources.vllm.program import (
    GPU_MEMORY,
    Weights,
    final_error,
    gpu_memory_share,
    last_error,
    serve_command,
    serve_environment,
)
from resources.vllm.streaming import BUFFER_BYTES
from tests.integration.serving.conftest import MakeServing

EXECUTABLE = Path("/engines/serve/bin/vllm")
ADAPTER: dict[str, Any] = {
    "mode": "adapter",
    "adapter_uri": "artifact://adapters/team-a/support_bot/1",
    "adapter_digest": "sha256:a",
    "lora_rank": 12,
}


def command_of(serving: Serving, *, live_versions: int = 1) -> tuple[str, ...]:
    return serve_command(
        serving,
        Weights(model="/model", adapter="/adapter" if serving.adapter_uri else None),
        listen=("--uds", "s.sock"),
        executable=str(EXECUTABLE),
        live_versions=live_versions,
    )


def options(command: tuple[str, ...], name: str) -> list[str]:
    """The values that follow an option."""
    after = command[command.index(name) + 1 :]
    end = next((i for i, word in enumerate(after) if word.startswith("--")), len(after))
    return list(after[:end])


def environment_of(serving: Serving, inherited: dict[str, str], cores: int = 2) -> dict[str, str]:
    return serve_environment(
        serving,
        api_key="k",
        executable=EXECUTABLE,
        cache=Path("/cache"),
        inherited=inherited,
        cores=cores,
    )


def test_merged_weights_are_served_under_the_model_and_the_version(make_serving: MakeServing) -> None:
    serving = make_serving()
    command = command_of(serving)
    assert command[:3] == (str(EXECUTABLE), "serve", "/model")
    assert options(command, "--served-model-name") == ["support_bot@v1", "support_bot"]
    assert options(command, "--fingerprint-value") == [serving.digest]
    assert options(command, "--load-format") == ["safetensors"]
    assert options(command, "--uds") == ["s.sock"]
    assert not {"--host", "--port"} & set(command)
    assert options(command, "--kv-cache-memory-bytes") == [str(64 * 1024**2)]
    assert "--enable-lora" not in command


def test_an_adapter_is_served_over_its_base_under_the_same_names(make_serving: MakeServing) -> None:
    serving = make_serving(**ADAPTER)
    command = command_of(serving)
    modules = [json.loads(module) for module in options(command, "--lora-modules")]
    assert modules == [{"name": name, "path": "/adapter"} for name in ("support_bot@v1", "support_bot")]
    assert options(command, "--served-model-name") == ["support_bot.base"]
    assert options(command, "--max-lora-rank") == ["16"]  # 12 is no rank that vLLM allocates
    assert options(command, "--chat-template") == ["/adapter/chat_template.jinja"]


def test_on_a_gpu_nothing_of_the_cpu_settings_is_left(make_serving: MakeServing) -> None:
    serving = make_serving(device="cuda")
    command = command_of(serving)
    assert options(command, "--gpu-memory-utilization") == [str(gpu_memory_share(1))]
    assert not {"--enforce-eager", "--kv-cache-memory-bytes"} & set(command)
    environment = environment_of(serving, {}, cores=8)
    assert not [
        name for name in environment if "OMP" in name or "COMPILE" in name or "MULTIPROCESSING" in name
    ]


@pytest.mark.parametrize("live_versions", [1, 2, 3])
def test_every_live_version_and_one_that_comes_fit_on_a_gpu(
    make_serving: MakeServing, live_versions: int
) -> None:
    serving = make_serving(device="cuda")
    command = command_of(serving, live_versions=live_versions)
    (share,) = options(command, "--gpu-memory-utilization")
    assert 0.8 * GPU_MEMORY < float(share) * (live_versions + 1) <= GPU_MEMORY


def test_a_server_inherits_no_credential(make_serving: MakeServing) -> None:
    inherited = {
        "HOME": "/home/x",
        "PATH": "/bin",
        "HF_TOKEN": "t",
        "AWS_SECRET_ACCESS_KEY": "t",
        "PYTHONPATH": "/x",
    }
    environment = environment_of(make_serving(), inherited)
    assert environment["VLLM_API_KEY"] == "k"
    assert environment["PATH"] == "/engines/serve/bin:/bin"
    assert not {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH"} & environment.keys()


BUCKET = {
    "AWS_SECRET_ACCESS_KEY": "t",
    "AWS_ENDPOINT_URL": "http://x",
    "GOOGLE_APPLICATION_CREDENTIALS": "/run/key.json",
    "STORAGE_EMULATOR_HOST": "http://x",
}


def test_streamed_weights_are_loaded_from_their_address_with_a_bounded_buffer(
    make_serving: MakeServing,
) -> None:
    command = command_of(make_serving(weights="stream"))
    assert command[2] == "/model"
    assert options(command, "--load-format") == ["runai_streamer"]
    (extra,) = options(command, "--model-loader-extra-config")
    assert json.loads(extra) == {"memory_limit": BUFFER_BYTES}


def test_only_a_server_that_streams_gets_what_the_bucket_needs(make_serving: MakeServing) -> None:
    inherited = {**BUCKET, "HF_TOKEN": "t", "MLFLOW_TRACKING_PASSWORD": "t"}
    streaming = environment_of(make_serving(weights="stream"), inherited)
    assert BUCKET.items() <= streaming.items()
    assert streaming["VLLM_ASSETS_CACHE"] == "/cache"
    assert not {"HF_TOKEN", "MLFLOW_TRACKING_PASSWORD"} & streaming.keys()
    assert not (BUCKET.keys() | {"VLLM_ASSETS_CACHE"}) & environment_of(make_serving(), inherited).keys()


def test_an_adapter_of_a_rank_that_vllm_does_not_serve_is_refused(make_serving: MakeServing) -> None:
    with pytest.raises(ServingError, match="has rank 1024, vLLM serves up to 512; serve it merged"):
        command_of(make_serving(**{**ADAPTER, "lora_rank": 1024}))


# Of a server whose attention kernel did not know the model's head size; shortened.
DEAD_ENGINE = """
(EngineCore pid=13519) ERROR 11-21 18:34:35 [core.py:1512]     return self._op(*args, **kwargs)
(EngineCore pid=13519) ERROR 11-21 18:34:35 [core.py:1512] RuntimeError: Unsupported CPU: head_dim=16
(APIServer pid=13358) ERROR 11-21 18:34:35 [async_llm.py:906] AsyncLLM output_handler failed.
(APIServer pid=13358) ERROR 11-21 18:34:35 [async_llm.py:906] vllm.v1.EngineDeadError: See above.
(APIServer pid=13358) RuntimeError: Engine core initialization failed. See root cause above.
INFO:     Application shutdown complete.
"""


ENGINE = "(EngineCore pid=7) ERROR 11-30 14:32:50 [core.py:1] ValueError: "
SHORT_CACHE = (  # of a server with max_model_len 131072 and a cache of 16 MiB
    "To serve at least one request with the model's max seq len (131072), (0.03 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (0.02 GiB). Based on the available memory, the "
    "estimated maximum model length is 65408. "
)
ADVICE = (
    "Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU backend) or "
    "decreasing `max_model_len` when initializing the engine. See https://docs.vllm.ai for more details."
)
WORKING = """
(APIServer pid=13358) json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)
(APIServer pid=13358) INFO:     127.0.0.1:41032 - "POST /v1/chat/completions HTTP/1.1" 400 Bad Request
"""


def test_the_final_error_is_the_first_fault_and_not_its_echoes() -> None:
    assert final_error(DEAD_ENGINE) == "RuntimeError: Unsupported CPU: head_dim=16"


def test_a_refused_argument_is_a_final_error() -> None:
    log = (
        "usage: vllm serve [model_tag] [options]\nvllm serve: error: argument --dtype: invalid choice: 'x'\n"
    )
    assert final_error(log) == "vllm serve: error: argument --dtype: invalid choice: 'x'"


def test_a_setting_that_does_not_fit_comes_with_the_setting_to_change() -> None:
    raised = "(without a GPU) raise its serving.kv_cache_mib."
    none = f"{ENGINE}No available memory for the cache blocks. {ADVICE}"
    assert str(final_error(none)).endswith(
        "for the cache blocks. The weights leave no room on the GPU: serve fewer versions at once, or take a "
        "GPU with more memory."
    )
    short = f"{ENGINE}{SHORT_CACHE}{ADVICE}"
    unknown = short.replace("the estimated maximum model length is 65408. ", "")
    assert str(final_error(unknown)).endswith(f"Lower serving.max_model_len of the model, or {raised}")
    assert final_error(short) == (
        f"ValueError: {SHORT_CACHE}Lower serving.max_model_len of the model to at most 65408, or {raised}"
    )
    length = (
        "(APIServer pid=7) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
        "  Value error, User-specified max_model_len (9000) is greater than the derived max_model_len "
        "(max_position_embeddings=8192 or model_max_length=None in model's config.json). To allow "
        "overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1.\n"
    )
    assert str(final_error(length)).endswith(
        "in model's config.json). Lower serving.max_model_len of the model to at most 8192."
    )


@pytest.mark.parametrize("log", ["", "INFO: up\n\n", WORKING])
def test_what_a_server_survived_is_no_final_error(log: str) -> None:
    assert final_error(log) is None


def test_the_last_error_is_told_of_a_server_that_goes_on() -> None:
    assert last_error(WORKING) == "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)"
    assert last_error("INFO: up\n\n") is None
