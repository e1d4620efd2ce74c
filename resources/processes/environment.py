"""What a started process sees of its starter's environment: what is named here, so no other's credential."""

import os
from collections.abc import Mapping

ALWAYS = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
ACCELERATOR_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_")


def inherited(
    environ: Mapping[str, str] = os.environ, *, names: tuple[str, ...] = (), prefixes: tuple[str, ...] = ()
) -> dict[str, str]:
    """Of `environ` the variables of `ALWAYS`, those of these names, and those that begin so."""
    every = {*ALWAYS, *names}
    return {name: value for name, value in environ.items() if name in every or name.startswith(prefixes)}
