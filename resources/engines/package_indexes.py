"""Where packages come from: pip's settings, said in uv's words.

A company sets its index, its certificate and its proxy once, for pip: in the environment (PIP_INDEX_URL, …)
or in pip's configuration files. uv reads none of them. `uv_environment` is the environment to start uv with.
What was set for uv itself (UV_…) wins over what was set for pip; .netrc and HTTPS_PROXY uv reads itself.

Only the standard library is used here: the repository's bootstrap runs this before anything is installed.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from resources.errors import LlmAssetsError

TORCH_INDEX_VARIABLE = "LLM_ASSETS_TORCH_INDEX"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"

# uv's variable, the older names that uv also reads, pip's option(s).
_LISTS = {
    "UV_INDEX": (("UV_EXTRA_INDEX_URL",), "extra-index-url", " "),
    "UV_FIND_LINKS": ((), "find-links", ","),
    "UV_INSECURE_HOST": ((), "trusted-host", " "),
}
_VALUES = {
    "UV_DEFAULT_INDEX": (("UV_INDEX_URL",), ("index-url", "pypi-url")),
    "UV_HTTP_TIMEOUT": (("UV_REQUEST_TIMEOUT",), ("timeout", "default-timeout")),
    "UV_HTTP_RETRIES": ((), ("retries",)),
}
# uv shares these with every other program. What was set for pip is about package indexes, so it wins for uv.
_SHARED = {
    "SSL_CERT_FILE": "cert",
    "SSL_CLIENT_CERT": "client-cert",
    "HTTP_PROXY": "proxy",
    "HTTPS_PROXY": "proxy",
    "http_proxy": "proxy",
    "https_proxy": "proxy",
}
_TRUE = {"1", "true", "yes", "on", "y", "t"}


CONFIG_S = 60
LOOK_S = 600
_CREDENTIALS = re.compile(r"(?<=://)[^/\s]+@")


class PackageIndexError(LlmAssetsError):
    """pip's settings cannot be read, or an index does not answer."""


def without_credentials(text: str) -> str:
    """What pip or uv said, less the user and password of any address in it."""
    return _CREDENTIALS.sub("***@", text)


def uv_environment(
    *, environ: Mapping[str, str] = os.environ, python: str = sys.executable
) -> dict[str, str]:
    """`environ` with pip's settings added as uv's variables; `python` is the one whose pip is asked."""
    settings = pip_settings(environ=environ, python=python)
    added = _translated(settings, environ)
    # uv would take a package from the first index that knows its name, whatever the version. pip looks at all
    # of them, which is safe here because every file that is installed has its hash in a lock.
    added.setdefault("UV_INDEX_STRATEGY", environ.get("UV_INDEX_STRATEGY", "unsafe-best-match"))
    return {**environ, **added}


def _translated(settings: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    added = {name: settings[option] for name, option in _SHARED.items() if settings.get(option)}
    for name, (older, option, separator) in _LISTS.items():
        if settings.get(option) and not _is_set(environ, name, *older):
            added[name] = separator.join(_usable(settings[option].split()))
    for name, (older, options) in _VALUES.items():
        value = next((settings[option] for option in options if settings.get(option)), None)
        if value and not _is_set(environ, name, *older):
            added[name] = value
    if settings.get("no-index", "").lower() in _TRUE and not _is_set(environ, "UV_NO_INDEX"):
        added["UV_NO_INDEX"] = "1"
    if settings.get("keyring-provider") in {"import", "subprocess"} and not _is_set(
        environ, "UV_KEYRING_PROVIDER"
    ):
        added["UV_KEYRING_PROVIDER"] = "subprocess"
    return added


def pip_settings(*, environ: Mapping[str, str] = os.environ, python: str = sys.executable) -> dict[str, str]:
    """What pip would go by, option by option: its files, then its variables, as pip itself merges them.

    Raises:
        PackageIndexError: pip does not say.
    """
    try:
        answer = subprocess.run(
            [python, "-m", "pip", "--disable-pip-version-check", "config", "list"],
            env={**environ, "PYTHONWARNINGS": "ignore", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=CONFIG_S,
        )
    except subprocess.TimeoutExpired as error:
        raise PackageIndexError(
            f"pip's settings cannot be read: `{python} -m pip config list` did not end within {CONFIG_S} s. "
            "Try it by hand."
        ) from error
    if answer.returncode and "No module named pip" in answer.stderr:
        return _from_environment(environ)
    if answer.returncode:
        raise PackageIndexError(
            f"pip's settings cannot be read: `{python} -m pip config list` said: "
            f"{without_credentials(answer.stderr.strip())}"
        )
    return _merged(answer.stdout)


def _merged(listing: str) -> dict[str, str]:
    """Out of lines like `global.cert='…'`; a command's section beats global, variables (:env:) beat both."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        key, separator, value = line.partition("=")
        section, _, option = key.partition(".")
        if separator and section in sections:
            sections[section][option] = str(ast.literal_eval(value))
    return {**sections["global"], **sections["install"], **sections[":env:"]}


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Without pip there are no files of pip's to go by, its variables still count."""
    return {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("PIP_")
    }


def _is_set(environ: Mapping[str, str], *names: str) -> bool:
    return any(environ.get(name) for name in names)


def _usable(locations: list[str]) -> Iterator[str]:
    """pip expands `~` and passes over a folder that is not there; uv does neither."""
    for location in locations:
        path = Path(location).expanduser()
        if not location.startswith(("~", "/")):
            yield location
        elif path.exists():
            yield str(path)


def with_torch_index(environ: Mapping[str, str], *, uv: str, requirement: str) -> dict[str, str]:
    """Adds PyTorch's index of CPU builds, unless what is set up here has `requirement` or allows no index.

    LLM_ASSETS_TORCH_INDEX replaces its address, for instance by a company's mirror; empty: never add it.
    """
    index = environ.get(TORCH_INDEX_VARIABLE, TORCH_CPU_INDEX)
    if not index or environ.get("UV_NO_INDEX") or _is_found(environ, uv=uv, requirement=requirement):
        return dict(environ)
    return {**environ, "UV_INDEX": f"{environ.get('UV_INDEX', '')} {index}".strip()}


def _is_found(environ: Mapping[str, str], *, uv: str, requirement: str) -> bool:
    try:
        looked = subprocess.run(
            [uv, "pip", "compile", "--quiet", "--no-deps", "--no-header", "-"],
            input=requirement,
            env=dict(environ),
            capture_output=True,
            text=True,
            timeout=LOOK_S,
        )
    except subprocess.TimeoutExpired as error:
        raise PackageIndexError(
            f"Looking for {requirement} took over {LOOK_S} s. Check the index and proxy that pip is set up "
            "with (`pip config list`)."
        ) from error
    return looked.returncode == 0
