"""The two files that may hold settings, both beside `workspace.yaml`: `installation.yaml` and `.env`.

`.env` is loaded into the environment of the process, so that credentials in it (`HF_TOKEN`, `AWS_PROFILE`, …)
reach the libraries and the programs that read them. What the environment has already stays.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream

from llm_assets.catalog.yaml_files import YamlError, read_yaml
from resources.errors import InputError

PREFIX = "LLM_ASSETS_"
INSTALLATION_FILE = "installation.yaml"
ENV_FILE = ".env"
SECRET = re.compile(r"(://)[^/\s]+(?=@)|(?i:((?:pin-value|password|token)=))[^&;\s]+")
MASK = "•••"


class SettingsError(InputError):
    """No installation was found, or a setting has a value that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class SettingsFile:
    """What a file sets, and the line of each; nothing where it is missing."""

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[str, int]

    def at(self, name: str) -> str:
        """The file and line of a setting: `/…/installation.yaml:3`."""
        return f"{self.path}:{self.lines[name]}"


def read_installation_file(root: Path) -> SettingsFile:
    """By setting, as the environment variable is called, in lower case and without `LLM_ASSETS_`.

    Raises:
        SettingsError: It cannot be read; names the line.
    """
    path = root / INSTALLATION_FILE
    if not path.exists():
        return SettingsFile(path=path, values={}, lines={})
    try:
        with path.open("rb") as file:
            document = read_yaml(file)
        if document.problems:
            raise document.problems[0]
    except YamlError as error:
        place = f"{path}:{error.line}" if error.line else str(path)
        field = f"{error.field}: " if error.field else ""
        raise SettingsError(f"{place}: {field}{error.problem}; {error.valid or 'correct it'}.") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    lines = {name: document.line((name,)) for name in document.value}
    return SettingsFile(path=path, values=document.value, lines=lines)


def read_env_file(root: Path) -> SettingsFile:
    """By environment variable. Nothing in it is expanded.

    Raises:
        SettingsError: A line is none of the form `NAME=value`, or the file cannot be read.
    """
    path, values, lines = root / ENV_FILE, {}, {}
    if not path.is_file():
        return SettingsFile(path=path, values={}, lines={})
    try:
        with path.open(encoding="utf-8") as file:
            for binding in parse_stream(file):
                if binding.error:
                    raise SettingsError(f"{path}:{binding.original.line}: write `NAME=value`.")
                if binding.key is not None and binding.value is not None:
                    values[binding.key] = binding.value
                    text = binding.original.string  # begins with the empty lines before it
                    before = len(text) - len(text.lstrip())
                    lines[binding.key] = binding.original.line + text.count("\n", 0, before)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}.") from error
    return SettingsFile(path=path, values=values, lines=lines)


def load_env_file(root: Path) -> SettingsFile:
    """What it sets is in the environment afterwards, unless that had it already."""
    file = read_env_file(root)
    for name, value in file.values.items():
        os.environ.setdefault(name, value)
    return file


def masked(text: str) -> str:
    """The text without the passwords and tokens that an address may hold."""
    return SECRET.sub(lambda found: f"{found[1] or found[2]}{MASK}", text)
