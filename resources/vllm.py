"""vLLM as a program: what one server of one model is, and the command and environment that run it.

Everything here is a pure function of the frozen `Serving`. The CPU settings are those that started
fastest of the ones tried on two cores (warm disk cache, a small model): 22 s with vLLM's defaults
as far as they fit into memory, 16 s as below. What is left is importing vLLM twice, 6 to 7 s each.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resources.names import MODEL, TENANT, VERSION

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vllm.config.lora.MaxLoRARanks of 0.32
# Half of the GPU less a reserve, so that the next version fits beside the one that still serves.
GPU_MEMORY_SHARE = 0.45
INHERITED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "XDG_CACHE_HOME")
INHERITED_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_")


class VllmError(Exception):
    """vLLM, or one server of it, did not do what was asked of it."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """One model version of one tenant as it is to be served; the same on a laptop and a cluster.

    Attributes:
        version: The label of the version; served names carry it.
        digest: The digest of the version; every response carries it as `system_fingerprint`.
        model_folder: The merged model, or in adapter mode the base model.
        chat_template: The template that was trained with; None where the model folder holds it.
        lora_rank: The adapter's rank.
        port: A fixed port; None for any free one.
        known_answers: Questions with what the merged model answered offline (`vllm_answers`).
        engine: The digest of the serve engine's lock: another vLLM is another server.

    Raises:
        VllmError: The values do not fit together.
    """

    tenant: str
    model: str
    version: str
    digest: str
    mode: Literal["merged", "adapter"]
    model_folder: Path
    adapter_folder: Path | None = None
    chat_template: Path | None = None
    lora_rank: int | None = None
    max_model_len: int
    max_num_seqs: int
    kv_cache_mib: int
    dtype: str
    port: int | None = None
    known_answers: tuple[dict[str, Any], ...]
    engine: str
    device: Literal["cpu", "cuda"]

    def __post_init__(self) -> None:
        if problem := next(_problems(self), None):
            raise VllmError(f"{self.tenant}/{self.model} version {self.version} cannot be served: {problem}")

    @property
    def name(self) -> str:
        return f"{self.tenant}/{self.model}"

    @property
    def served_names(self) -> tuple[str, str]:
        """The name that pins this version, and the one that always means the live version."""
        return f"{self.model}@{self.version}", self.model


def _problems(serving: Serving) -> Iterator[str]:
    if not TENANT.fullmatch(serving.tenant):
        yield f"the tenant name {serving.tenant!r} is not a DNS label"
    if not MODEL.fullmatch(serving.model):
        yield f"the model name {serving.model!r} is not made of a-z, 0-9 and _"
    if not VERSION.fullmatch(serving.version):
        yield f"the version {serving.version!r} is not made of up to 127 letters, digits, '.', '_' and '-'"
    if (serving.mode == "adapter") != (serving.adapter_folder is not None):
        yield f"mode {serving.mode} and adapter folder {serving.adapter_folder} do not fit together"
    if serving.mode == "adapter" and serving.lora_rank is None:
        yield "mode adapter needs the adapter's rank"
    if (serving.lora_rank or 0) > LORA_RANKS[-1]:
        yield f"its adapter has rank {serving.lora_rank}, vLLM serves up to {LORA_RANKS[-1]}; serve it merged"
    if not serving.known_answers or not all(known["tokens"] for known in serving.known_answers):
        yield "it has no known answer (or an empty one) that could tell whether the right model answers"


def serve_command(serving: Serving, *, port: int, executable: Path) -> tuple[str, ...]:
    """The command line of one server on this machine. It holds no secret."""
    return (
        *(str(executable), "serve", str(serving.model_folder)),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", serving.dtype, "--load-format", "safetensors"),
        *("--max-model-len", str(serving.max_model_len), "--max-num-seqs", str(serving.max_num_seqs)),
        *("--fingerprint-mode", "custom", "--fingerprint-value", serving.digest),
        *("--disable-access-log-for-endpoints", "/health,/metrics"),
        *(("--chat-template", str(serving.chat_template)) if serving.chat_template else ()),
        *_device_options(serving),
        *_name_options(serving),
    )


def _device_options(serving: Serving) -> tuple[str, ...]:
    if serving.device == "cuda":
        return ("--gpu-memory-utilization", str(GPU_MEMORY_SHARE))
    # Compiling for a CPU takes a C++ compiler and minutes; a KV cache sized by default does not fit.
    return ("--enforce-eager", "--kv-cache-memory-bytes", str(serving.kv_cache_mib * 1024 * 1024))


def _name_options(serving: Serving) -> tuple[str, ...]:
    """Both served names. The base model below an adapter can be asked too, as `<model>.base`."""
    if serving.mode == "merged":
        return ("--served-model-name", *serving.served_names)
    rank = next(rank for rank in LORA_RANKS if rank >= (serving.lora_rank or 0))
    modules = [
        json.dumps({"name": name, "path": str(serving.adapter_folder)}) for name in serving.served_names
    ]
    adapters = ("--enable-lora", "--max-loras", str(len(modules)), "--max-lora-rank", str(rank))
    return ("--served-model-name", f"{serving.model}.base", *adapters, "--lora-modules", *modules)


def serve_environment(
    serving: Serving, *, api_key: str, executable: Path, inherited: Mapping[str, str], cores: int
) -> dict[str, str]:
    """The whole environment of a server: of the starter's only what `INHERITED` names, so no credential.

    Args:
        inherited: The starter's environment.
        cores: How many cores this machine has.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }
    path = f"{executable.parent}:{kept.get('PATH', '/usr/bin:/bin')}"
    own = {
        "PATH": path,
        "VLLM_API_KEY": api_key,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONSAFEPATH": "1",  # no import from the folder the platform happens to run in
    }
    return {**kept, **own, **(_cpu_environment(cores) if serving.device == "cpu" else {})}


def _cpu_environment(cores: int) -> dict[str, str]:
    return {
        "OMP_NUM_THREADS": str(max(1, min(4, cores // 2))),  # more only spin where others work
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "TORCH_COMPILE_DISABLE": "1",
        # The worker lives in the engine's process, as on one GPU: 6 s and 500 MB less than a process
        # of its own, which vLLM's CPU build takes only to set the two OMP variables above by itself.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }


def settings_fingerprint(serving: Serving) -> str:
    """Changes with anything that a running server would have to be replaced for.

    The known answers are not part of it, and the chat template counts by its text.
    """
    values = {name: value for name, value in vars(serving).items() if name != "known_answers"}
    if serving.chat_template:
        values["chat_template"] = serving.chat_template.read_text()
    text = json.dumps(values, sort_keys=True, default=str)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


LOG_PREFIX = re.compile(r"^(\([^)]*pid=\d+\) )?((INFO|WARNING|ERROR) \d\d-\d\d [\d:]+ \[[^\]]*\] ?)?")
CAUSE = re.compile(r"^([\w.]*(Error|Exception|Exit)|vllm[\w. ]*: error): ")
# vLLM says these when something else, said before, went wrong.
SECOND_HAND = ("Engine core initialization failed", "EngineDeadError", "WorkerProc initialization failed")
# vLLM's own advice is about GPUs and its command line.
REMEDIES = {
    "memory for the cache blocks": "Raise serving.kv_cache_mib of the model.",
    "KV cache is needed": "Raise serving.kv_cache_mib of the model, or lower its serving.max_model_len.",
    "greater than the derived max_model_len": "Lower serving.max_model_len of the model.",
}


def last_error(log: str) -> str | None:
    """The last line of a server's log that tells an error and is no echo of another, with the remedy."""
    lines = [LOG_PREFIX.sub("", line).strip() for line in log.splitlines()]
    for at in reversed(range(len(lines))):
        if CAUSE.match(lines[at]) and not any(echo in lines[at] for echo in SECOND_HAND):
            told = 2 if "validation error" in lines[at] else 1  # pydantic says what is wrong on the next line
            error = " ".join(lines[at : at + told])
            remedies = [remedy for sign, remedy in REMEDIES.items() if sign in error]
            return " ".join([error, *remedies[:1]])
    return None


def cause_of_death(log: str) -> str:
    """The line of a dead server's log that says why: its last error, else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return last_error(log) or (f"its last line was {lines[-1]!r}" if lines else "its log is empty")
