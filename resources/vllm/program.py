"""vLLM as a program: the command and environment that serve one version, and what its log says.

Everything here is a pure function of the frozen `Serving`. The CPU settings are those that started
fastest of the ones tried on two cores (warm disk cache, a small model): 22 s with vLLM's defaults
as far as they fit into memory, 16 s as below. What is left is importing vLLM twice, 6 to 7 s each.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from resources.seams.serving import Serving, ServingError
from resources.vllm.streaming import stream_environment, stream_options

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vllm.config.lora.MaxLoRARanks of 0.32
# Models (`model_type`) of which vLLM 0.32 loads an adapter with LoRA on input and output embeddings: those
# whose class names them in `embedding_modules`.
_LORA_ON_EMBEDDINGS = """
    apertus ernie4_5 exaone4 exaone_moe falcon_h1 granite granitemoe granitemoehybrid granitemoeshared jamba
    lfm2 lfm2_moe llama llama4 llama4_text mixtral nemotron nemotron_h phi3 qwen3 qwen3_5 qwen3_5_moe
    qwen3_5_moe_text qwen3_5_text qwen3_moe
"""
LORA_ON_EMBEDDINGS = frozenset(_LORA_ON_EMBEDDINGS.split())
# vllm.tool_parsers of 0.32
_TOOL_CALL_PARSERS = """
    apertus cohere_command3 cohere_command4 deepseek_v3 deepseek_v31 deepseek_v32 deepseek_v4
    deepseek_v41 dots ernie45 functiongemma gemma4 gigachat3 glm45 glm47 granite granite-20b-fc granite4
    hermes hf hunyuan_a13b hy_v3 hy_v4 inkling internlm jamba k2_horizon kimi_k2 kimi_k3 lfm2 ling3
    llama3_json llama4_json llama4_pythonic longcat mimo minicpm5 minimax_m2 minimax_m3 mistral
    muse_glimmer olmo3 openai phi4_mini_json plamo3 poolside_v1 pythonic qwen3_coder qwen3_json
    qwen3_xml seed_oss step3 step3p5 xlam
"""
TOOL_CALL_PARSERS = frozenset(_TOOL_CALL_PARSERS.split())
GPU_MEMORY = 0.9  # of a GPU; the rest is for CUDA itself
SHUTDOWN_S = 5  # in which a server that is told to end still answers what it was asked
INHERITED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "XDG_CACHE_HOME")
INHERITED_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where one server finds what it loads.

    Attributes:
        model: The folder of the merged model or of the base model, or where it is streamed from.
        adapter: The folder of the adapter, which holds the chat template that was trained with.
    """

    model: str
    adapter: str | None = None


def gpu_memory_share(live_versions: int) -> float:
    """What one server may take of a GPU, so that every live version and one that is coming fit."""
    return math.floor(100 * GPU_MEMORY / (live_versions + 1)) / 100


def serve_command(
    serving: Serving, weights: Weights, *, listen: tuple[str, ...], executable: str, live_versions: int = 1
) -> tuple[str, ...]:
    """The command line of one server. It holds no secret.

    Args:
        listen: vLLM's options that say where, such as `--uds` with the name of a unix socket.
        live_versions: How many versions of the model are to be live at once; a GPU's memory is shared.

    Raises:
        ServingError: vLLM does not serve an adapter of that rank.
    """
    template = ("--chat-template", f"{weights.adapter}/chat_template.jinja") if weights.adapter else ()
    return (
        *(executable, "serve", weights.model),
        *listen,
        *("--dtype", serving.dtype),
        *(stream_options() if serving.weights == "stream" else ("--load-format", "safetensors")),
        *("--max-model-len", str(serving.max_model_len), "--max-num-seqs", str(serving.max_num_seqs)),
        *("--fingerprint-mode", "custom", "--fingerprint-value", serving.digest),
        *("--disable-access-log-for-endpoints", "/health,/metrics"),
        *("--shutdown-timeout", str(SHUTDOWN_S)),
        *template,
        *_tool_options(serving),
        *_device_options(serving, live_versions),
        *_name_options(serving, weights.adapter),
    )


def _tool_options(serving: Serving) -> tuple[str, ...]:
    if serving.tool_call_parser is None:
        return ()
    return ("--enable-auto-tool-choice", "--tool-call-parser", serving.tool_call_parser)


def _device_options(serving: Serving, live_versions: int) -> tuple[str, ...]:
    if serving.device == "cuda":
        return ("--gpu-memory-utilization", str(gpu_memory_share(live_versions)))
    # Compiling for a CPU takes a C++ compiler and minutes; a KV cache sized by default does not fit.
    return ("--enforce-eager", "--kv-cache-memory-bytes", str(serving.kv_cache_mib * 1024 * 1024))


def _name_options(serving: Serving, adapter: str | None) -> tuple[str, ...]:
    """Both served names. The base model below an adapter can be asked too, as `<model>.base`."""
    if adapter is None or serving.lora_rank is None:
        return ("--served-model-name", *serving.served_names)
    rank = next((rank for rank in LORA_RANKS if rank >= serving.lora_rank), None)
    if rank is None:
        raise ServingError(
            f"{serving.name} version {serving.version} cannot be served: its adapter has rank "
            f"{serving.lora_rank}, vLLM serves up to {LORA_RANKS[-1]}; serve it merged"
        )
    modules = [json.dumps({"name": name, "path": adapter}) for name in serving.served_names]
    adapters = ("--enable-lora", "--max-loras", str(len(modules)), "--max-lora-rank", str(rank))
    return ("--served-model-name", f"{serving.model}.base", *adapters, "--lora-modules", *modules)


def serve_environment(
    serving: Serving,
    *,
    api_key: str,
    executable: Path,
    cache: Path,
    inherited: Mapping[str, str],
    cores: int,
) -> dict[str, str]:
    """The whole environment of a server: of the starter's only what `INHERITED` names, so no credential.

    A server that streams its weights gets those of the bucket too, and nothing else does.

    Args:
        cache: Where a server that streams its weights keeps the few other files of the model.
        inherited: The starter's environment.
        cores: How many cores this machine has.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }
    path = f"{executable.parent}:{kept.get('PATH', '/usr/bin:/bin')}"
    own = {"PATH": path, "VLLM_API_KEY": api_key}
    streaming = stream_environment(inherited, cache) if serving.weights == "stream" else {}
    return {**kept, **streaming, **own, **engine_environment(serving, cores=cores)}


def engine_environment(serving: Serving, *, cores: int) -> dict[str, str]:
    """What vLLM is set to by its environment, wherever it runs."""
    return {
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONSAFEPATH": "1",  # no import from the folder the platform happens to run in
        **(_cpu_environment(cores) if serving.device == "cpu" else {}),
    }


def _cpu_environment(cores: int) -> dict[str, str]:
    return {
        "OMP_NUM_THREADS": str(max(1, min(4, cores // 2))),  # more only spin where others work
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "TORCH_COMPILE_DISABLE": "1",
        # The worker lives in the engine's process, as on one GPU: 6 s and 500 MB less than a process
        # of its own, which vLLM's CPU build takes only to set the two OMP variables above by itself.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }


LOG_PREFIX = re.compile(r"^(\([^)]*pid=\d+\) )?((INFO|WARNING|ERROR) \d\d-\d\d [\d:]+ \[[^\]]*\] ?)?")
CAUSE = re.compile(r"^([\w.]*(Error|Exception|Exit)|vllm[\w. ]*: error): ")
# vLLM says these when something else, said before, went wrong.
SECOND_HAND = ("Engine core initialization failed", "EngineDeadError", "WorkerProc initialization failed")
# vLLM and uvicorn at work; what they say while they shut down is none.
WORK = re.compile(
    r"^(\([^)]*pid=\d+\) )?INFO(:? )(?! *(Shutting down|Waiting for|Application shutdown|Finished server))"
)
# vLLM's own advice is about its command line: ours takes its place.
VLLMS_ADVICE = re.compile(r" (Try increasing `|To allow overriding this maximum).*$")
_CACHE = "(without a GPU) raise its serving.kv_cache_mib"
# The first that fits; a group of its pattern is a number that the remedy has.
REMEDIES = {
    r"available memory for the cache blocks": (
        "The weights leave no room on the GPU: serve fewer versions at once, or take a GPU with more memory."
    ),
    r"estimated maximum model length is (\d+)": (
        f"Lower serving.max_model_len of the model to at most {{}}, or {_CACHE}."
    ),
    r"KV cache is needed": f"Lower serving.max_model_len of the model, or {_CACHE}.",
    r"greater than the derived max_model_len \(\w+=(\d+)": (
        "Lower serving.max_model_len of the model to at most {}."
    ),
}


def last_error(log: str) -> str | None:
    """The last line of a server's log that tells an error and is no echo of another, with the remedy."""
    lines = _lines(log)
    at = _last_error_at(lines)
    return None if at is None else _error_at(lines, at)


def final_error(log: str) -> str | None:
    """As `last_error`, if the server said nothing of its work afterwards: what it survived did not end it."""
    lines = _lines(log)
    at = _last_error_at(lines)
    if at is None or any(WORK.match(line) for line in log.splitlines()[at + 1 :]):
        return None
    return _error_at(lines, at)


def _lines(log: str) -> list[str]:
    return [LOG_PREFIX.sub("", line).strip() for line in log.splitlines()]


def _last_error_at(lines: list[str]) -> int | None:
    for at in reversed(range(len(lines))):
        if CAUSE.match(lines[at]) and not any(echo in lines[at] for echo in SECOND_HAND):
            return at
    return None


def _error_at(lines: list[str], at: int) -> str:
    told = 2 if "validation error" in lines[at] else 1  # pydantic says what is wrong on the next line
    error = " ".join(lines[at : at + told])
    for sign, remedy in REMEDIES.items():
        if found := re.search(sign, error):
            return f"{VLLMS_ADVICE.sub('', error)} {remedy.format(*found.groups())}"
    return error
