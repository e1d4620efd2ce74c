"""One message of a conversation: its role, its text, whether it is learned from, and what of it is not used.

A key that would change what is learned if it were followed, and that LLaMA-Factory does not follow, is
refused; any other that has no effect is remarked.
"""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from llm_assets.datasets.examples import Role, invalid, kind, parsed
from llm_assets.datasets.layouts import MASKED, Layout, Tags
from llm_assets.datasets.remarks import Remark, left_out

ANSWERS = ("assistant", "function")
WRAPPERS = re.compile(r"</?tool_call>")

SWITCHES = ("weight", "loss_weight", "train", "training", "loss", "trainable")
"""Whether an answer is learned from: the keys of OpenAI, LLaMA-Factory 1.0, axolotl, and ms-swift."""
LINKS = ("id", "type", "tool_call_id")
"""Which call a response belongs to: their order says so already."""
REASONING = "put it into the text, between <think> and </think>, or take it out"
MEDIA = "models here learn from text alone; take the row out, or the key if the text stands for itself"
REFUSED = {
    **dict.fromkeys(
        ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thought", "thoughts"), REASONING
    ),
    **dict.fromkeys(("images", "image", "image_url", "videos", "video", "audios", "audio"), MEDIA),
    "function_call": 'write it as `tool_calls`: [{"function": {"name": …, "arguments": …}}]',
    "refusal": "put its text into the text of the message",
}
BESIDE_CALL = left_out("the text beside a tool call is dropped, as LLaMA-Factory does")


class Message(NamedTuple):
    """A message, understood. The role None is the system's."""

    role: Role | None
    content: str
    masked: bool
    remarks: tuple[Remark, ...]


def read_message(message: object, place: str, layout: Layout, *, first: bool) -> Message:
    """What the message says.

    Raises:
        InvalidRow: With its first problem.
    """
    tags = layout.tags
    if not isinstance(message, dict):
        raise invalid(
            place, f"is {kind(message)}; give an object with {tags.role_tag} and {tags.content_tag}"
        )
    role, content, remarks = _said(message, place, layout, first=first)
    masked = _masked(message, place, role)
    return Message(role, content, masked, (*remarks, *_unused(message, place, layout, role)))


def _said(
    message: Mapping[str, object], place: str, layout: Layout, *, first: bool
) -> tuple[Role | None, str, tuple[Remark, ...]]:
    tags, roles = layout.tags, _roles(layout.tags)
    calls = layout.formatting == "openai" and message.get("tool_calls")
    _refuse_keys(message, place, layout)
    for key in (tags.role_tag, tags.content_tag):
        if key not in message and not calls:
            raise invalid(place, f"has no {key!r}; it has {', '.join(map(str, message)) or 'nothing'}")
    name, written = message.get(tags.role_tag), message.get(tags.content_tag)
    if calls and roles.get(str(name)) in ANSWERS:
        beside = (BESIDE_CALL,) if written not in (None, "", []) else ()
        return "function", _calls(calls, place), beside
    if calls:
        raise invalid(f"{place}.tool_calls", f"is of the {tags.assistant_tag} alone, and this is of {name!r}")
    content = _text(written, f"{place}.{tags.content_tag}")
    if first and tags.system_tag and name == tags.system_tag:
        return None, content, ()
    role = roles.get(name) if isinstance(name, str) else None
    if role is None:
        raise invalid(f"{place}.{tags.role_tag}", _unknown_role(name, tags, roles))
    if role == "function":
        _refuse_other_than_calls(content, f"{place}.{tags.content_tag}")
    return role, content, ()


def _text(content: object, place: str) -> str:
    """OpenAI also writes a text as a list of parts; vLLM serves such parts joined by line ends."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content or not all(isinstance(part, dict) for part in content):
        raise invalid(place, f"is {kind(content)}; give a text")
    for part in content:
        if part.get("type") != "text":
            raise invalid(place, f"has a part of the type {part.get('type')!r}; {MEDIA}")
        if not isinstance(part.get("text"), str):
            raise invalid(place, 'has a part without its text; give {"type": "text", "text": "…"}')
    return "\n".join(part["text"] for part in content)


def _refuse_keys(message: Mapping[str, object], place: str, layout: Layout) -> None:
    own = (layout.tags.role_tag, layout.tags.content_tag)
    for key, remedy in REFUSED.items():
        if key not in own and not _empty(message.get(key)):
            raise invalid(f"{place}.{key}", f"would not be learned from; {remedy}")
    if layout.formatting != "openai" and not _empty(message.get("tool_calls")):
        raise invalid(f"{place}.tool_calls", "is read with `formatting: openai` alone; set it")


def _masked(message: Mapping[str, object], place: str, role: Role | None) -> bool:
    """Whether the message is an answer that is not to be learned from."""
    said = {key: _switch(message[key], f"{place}.{key}") for key in SWITCHES if not _empty(message.get(key))}
    if message.get(MASKED) is not None:
        said[MASKED] = not _switch(message[MASKED], f"{place}.{MASKED}")
    if role in ANSWERS:
        return not all(said.values())
    for key, learned in said.items():
        if learned and key != MASKED:
            raise invalid(f"{place}.{key}", "asks to learn a question; only answers are learned: take it out")
    return False


def _switch(value: object, place: str) -> bool:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise invalid(place, f"is {json.dumps(value, default=str)}; give 0 (not learned from) or 1")


def _unused(
    message: Mapping[str, object], place: str, layout: Layout, role: Role | None
) -> tuple[Remark, ...]:
    used = {layout.tags.role_tag, layout.tags.content_tag, MASKED, *SWITCHES}
    if layout.formatting == "openai":
        used |= {"tool_calls", *LINKS, *(["name"] if role == "observation" else [])}
    column = place.partition("[")[0]
    return tuple(
        left_out(f"{column}: the key `{key}` of its messages is not used")
        for key, value in message.items()
        if key not in used and not _empty(value)
    )


def _empty(value: object) -> bool:
    return value is None or value in ("", [], {})


def _roles(tags: Tags) -> dict[str, Role]:
    named: list[tuple[str | None, Role]] = [
        (tags.function_tag, "function"),
        (tags.observation_tag, "observation"),
        (tags.assistant_tag, "assistant"),
        (tags.user_tag, "user"),
    ]
    return {name: role for name, role in named if name}


def _unknown_role(name: object, tags: Tags, roles: Mapping[str, Role]) -> str:
    if name == tags.system_tag:
        return f"{name!r} may only be the first message"
    usual = ", ".join(sorted([*roles, *([tags.system_tag] if tags.system_tag else [])]))
    return f"{name!r} is no role here; roles are {usual} (`tags` in dataset_info.json can name others)"


def _calls(calls: object, place: str) -> str:
    if not isinstance(calls, list) or not all(
        isinstance(call, dict) and isinstance(call.get("function"), dict) for call in calls
    ):
        raise invalid(f"{place}.tool_calls", "is not a list of objects that hold a `function`")
    text = json.dumps([_call(call["function"]) for call in calls], ensure_ascii=False)
    _refuse_other_than_calls(text, f"{place}.tool_calls")
    return text


def _call(function: dict[str, object]) -> dict[str, object]:
    """OpenAI writes the arguments as JSON in a text; templates of chat models expect the object."""
    try:
        return function | {"arguments": parsed(str(function["arguments"]))}
    except (KeyError, TypeError, ValueError):
        return function


def _refuse_other_than_calls(content: str, place: str) -> None:
    """LLaMA-Factory stops in the middle of a training at a call that is not JSON."""
    text = WRAPPERS.sub("", _without_thoughts(content)).strip()
    if text.startswith("<"):  # the markup of some other template, which may wrap JSON in its own words
        return
    try:
        call = parsed(text)
    except ValueError as error:
        raise invalid(place, f'is not the JSON of a call, {{"name": …, "arguments": …}}: {error}') from error
    calls = call if isinstance(call, list) else [call]
    if not all(isinstance(call, dict) and {"name", "arguments"} <= set(call) for call in calls):
        raise invalid(place, "is not a call; it needs `name` and `arguments`")


def _without_thoughts(content: str) -> str:
    """Without what stands between <think> and the next </think>."""
    kept, start = [], 0
    while (opening := content.find("<think>", start)) >= 0:
        closing = content.find("</think>", opening)
        if closing < 0:
            break
        kept.append(content[start:opening])
        start = closing + len("</think>")
    return "".join([*kept, content[start:]])
