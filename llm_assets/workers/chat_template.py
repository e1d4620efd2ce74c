"""That a served model reads a conversation exactly as it was trained to.

Training encodes with LLaMA-Factory's template, vLLM with the folder's Jinja template. The two are
compared token by token on a few conversations; where they differ, the folder gets a template that
agrees, and where none does, the model is refused. Not covered: tools, images, and a reply's own
encoding in later turns beyond plain text.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_assets.workers.bounded import bounded
from llm_assets.workers.failures import WorkerError

TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_KEYS = ("default_system", "enable_thinking", "preserve_thinking", "tool_format")

Message = dict[str, str]

_USER: Message = {"role": "user", "content": "What does a plain question look like?"}
_REPLY: Message = {"role": "assistant", "content": "Like this one."}
_SYSTEM: Message = {"role": "system", "content": "You answer in one sentence."}
# The first must agree; the others should, and decide between templates that agree on the first.
CONVERSATIONS: tuple[list[Message], ...] = (
    [_USER],
    [_SYSTEM, _USER],
    [_USER, _REPLY, _USER],
    [_SYSTEM, _USER, _REPLY, _USER],
)


class Encoding:
    """LLaMA-Factory's template with the tokenizer that it has prepared, as in training."""

    def __init__(self, folder: Path, template: str, recipe: Mapping[str, object]) -> None:
        from llamafactory.data import get_template_and_fix_tokenizer
        from llamafactory.hparams import DataArguments

        settings = {key: recipe[key] for key in TEMPLATE_KEYS if key in recipe}
        self.tokenizer = _tokenizer(folder)
        self._template = get_template_and_fix_tokenizer(
            self.tokenizer, DataArguments(template=template, **settings)
        )
        self.jinja = self._jinja()

    def prompt_ids(self, messages: list[Message]) -> list[int]:
        """The tokens that training puts before a reply to these messages."""
        system = messages[0]["content"] if messages[0]["role"] == "system" else None
        turns = messages[1:] if system is not None else messages
        empty_reply = {"role": "assistant", "content": ""}
        ids, _ = self._template.encode_oneturn(self.tokenizer, [*turns, empty_reply], system)
        return list(ids)

    def stop_ids(self) -> list[int]:
        unknown = self.tokenizer.unk_token_id
        return sorted(
            each for each in self._template.get_stop_token_ids(self.tokenizer) if each not in (None, unknown)
        )

    def _jinja(self) -> str | None:
        try:
            return str(self._template._get_jinja_template(self.tokenizer))
        except ValueError:
            return None  # LLaMA-Factory has no Jinja form of this template


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """The Jinja template and stop tokens that serve a model as it was trained; `origin` is for people."""

    jinja: str
    origin: str
    stop_ids: tuple[int, ...]

    def write(self, folder: Path) -> None:
        """Makes them those of a model's or an adapter's folder."""
        _replace(folder / TEMPLATE_FILE, self.jinja)
        config = folder / "tokenizer_config.json"
        content = json.loads(config.read_text(encoding="utf-8"))
        if content.pop("chat_template", None) is not None:
            _replace(config, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        _stop_at(folder, self.stop_ids)


def settle(folder: Path, template: str, recipe: Mapping[str, object]) -> ChatTemplate:
    """The chat template for a model with this folder's tokenizer. The model's own, where it agrees.

    Raises:
        WorkerError: No template encodes a plain question as the training does.
    """
    encoding = Encoding(folder, template, recipe)
    served = _tokenizer(folder)
    own = served.chat_template
    candidates = {"the model's own": own, f"LLaMA-Factory's {template}": encoding.jinja}
    if recipe.get("enable_thinking") is False and own:
        candidates["the model's own, thinking off"] = "{%- set enable_thinking = false -%}" + own
    wanted = [encoding.prompt_ids(each) for each in CONVERSATIONS]
    agreeing = {
        name: _agreeing(served, jinja, wanted, f"The chat template of {folder} ({name})")
        for name, jinja in candidates.items()
        if jinja
    }
    best = max(agreeing, key=lambda name: sum(agreeing[name]), default="")  # the first of equals
    if not best or not agreeing[best][0]:
        raise WorkerError(
            f"The chat template of {folder} does not encode a question as LLaMA-Factory's template "
            f"{template!r} does in training, so the model would not be served as it was trained. Give the "
            "base model the `template:` that its own chat template corresponds to."
        )
    different = len(CONVERSATIONS) - sum(agreeing[best])
    caveat = f"; {different} of {len(CONVERSATIONS)} kinds of conversation differ" if different else ""
    return ChatTemplate(
        jinja=str(candidates[best]), origin=best + caveat, stop_ids=tuple(encoding.stop_ids())
    )


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _agreeing(served: Any, jinja: str, wanted: list[list[int]], what: str) -> list[bool]:
    served.chat_template = jinja
    rendered = bounded(
        lambda: [_served_ids(served, each) for each in CONVERSATIONS],
        what=what,
        remedy="Give the base model a chat template that ends.",
    )
    return [ids == each for ids, each in zip(rendered, wanted, strict=True)]


def _served_ids(tokenizer: Any, messages: list[Message]) -> list[int] | None:
    from jinja2 import TemplateError

    try:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    except TemplateError:
        return None  # some models refuse a system message
    return list(ids)


def _stop_at(folder: Path, stop_ids: tuple[int, ...]) -> None:
    """vLLM ends a reply at the tokens that generation_config.json names."""
    config = folder / "generation_config.json"
    if not (folder / "config.json").is_file() or not stop_ids:
        return
    content = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    named = content.get("eos_token_id")
    known = [] if named is None else [named] if isinstance(named, int) else list(named)
    wanted = sorted({*known, *stop_ids})
    if wanted != sorted(known):
        content["eos_token_id"] = wanted if len(wanted) > 1 else wanted[0]
        _replace(config, json.dumps(content, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    """Never writes through a hard link that another folder shares."""
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
