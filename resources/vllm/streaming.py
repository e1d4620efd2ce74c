"""How vLLM loads weights straight from an object store, with Run:ai model streamer.

The streamer reads ranges of each object with several connections into a buffer and hands tensor by
tensor on; only the model's small files (config, tokenizer, templates) are written to disk. What it
reads is not verified by it: `resources/vllm/streamed_weights.py` does that.
"""

import json
from collections.abc import Mapping
from pathlib import Path

STREAMED_SCHEMES = ("gs://", "s3://")
DISK = "serving.weights: disk"
# Of one server's buffer. The streamer's own default is 40 GB. It has to hold the largest tensor.
BUFFER_BYTES = 8 * 2**30
# Who may read the bucket, and where it is. Passed on to servers that stream, and to no other.
BUCKET_ENVIRONMENT_PREFIXES = ("AWS_", "GOOGLE_", "CLOUDSDK_", "RUNAI_STREAMER_")
BUCKET_ENVIRONMENT = (
    *("STORAGE_EMULATOR_HOST", "CLOUD_STORAGE_EMULATOR_ENDPOINT"),  # Google's Python and C++ libraries
    *("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"),
    *("GCE_METADATA_HOST", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
)


def stream_options() -> tuple[str, ...]:
    """What a server's command line says instead of `--load-format safetensors`."""
    return (
        *("--load-format", "runai_streamer"),
        *("--model-loader-extra-config", json.dumps({"memory_limit": BUFFER_BYTES})),
    )


def stream_environment(inherited: Mapping[str, str], cache: Path) -> dict[str, str]:
    """What of the starter's environment a streaming server needs to reach the bucket."""
    passed = {
        name: value
        for name, value in inherited.items()
        if name in BUCKET_ENVIRONMENT or name.startswith(BUCKET_ENVIRONMENT_PREFIXES)
    }
    # vLLM names the folder by 32 bits of the address: one cache for each tenant and model.
    return {**passed, "VLLM_ASSETS_CACHE": str(cache)}
