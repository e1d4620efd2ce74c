"""Reads rows of LLaMA-Factory's ShareGPT layout and of OpenAI's chat format.

What is taken is what `SharegptDatasetConverter` and `OpenAIDatasetConverter` take: a system message at
most as the first one, then questions (user, observation) and answers (assistant, function) in turn, an
answer last. LLaMA-Factory drops other rows with a warning; here they are refused. One thing is left
out on purpose: its `openai` formatting adds "detailed thinking off" to every system message.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llm_assets.datasets.examples import (
    MISSING,
    Example,
    Role,
    Turn,
    desirable,
    invalid,
    kind,
    optional_text,
    tools_text,
)
from llm_assets.datasets.layouts import Layout, Tags

QUESTIONS, ANSWERS = ("user", "observation"), ("assistant", "function")
BETWEEN_TOOL_RESPONSES = "\n</tool_response>\n<tool_response>\n"
WRAPPERS = re.compile(r"<think>.*?</think>|</?tool_call>", re.DOTALL)


def read_conversation(row: Mapping[str, Any], layout: Layout) -> Example:
    """What the row says.

    Raises:
        InvalidRow: With the first problem of the conversation.
    """
    column = str(layout.messages)
    messages = row.get(column, MISSING)
    if messages is MISSING:
        raise invalid(column, f"missing column; the row has {', '.join(row) or 'none at all'}")
    if not isinstance(messages, list):
        raise invalid(
            column, f"is {kind(messages)}; give a list of messages (CSV cannot hold one, JSON Lines can)"
        )
    system, turns = _turns(messages, layout)
    _refuse_disorder(turns, column, layout)
    tag = desirable(row, layout.kto_tag) if layout.kto_tag else None
    if layout.ranking:
        asked, answers = turns, [_answer(row, layout.chosen, layout), _answer(row, layout.rejected, layout)]
    else:
        asked, answers = turns[:-1], turns[-1:]
    return Example(
        turns=tuple(asked),
        answers=tuple(answers),
        system=optional_text(row, layout.system) if system is None else system,
        tools=tools_text(row, layout.tools),
        desirable=tag,
    )


def _turns(messages: list[Any], layout: Layout) -> tuple[str | None, list[Turn]]:
    roles = _roles(layout.tags)
    system: str | None = None
    turns: list[Turn] = []
    responses: list[str] = []
    for index, message in enumerate(messages):
        place = f"{layout.messages}[{index}]"
        role, content = _role_and_content(message, place, layout, roles, first=index == 0)
        if role is None:
            system = content
        elif layout.formatting == "openai" and role == "observation":
            responses.append(content)
        else:
            turns += _observation(responses)
            responses = []
            turns.append(Turn(role, content))
    return system, turns  # responses after the last answer: as in LLaMA-Factory, nothing follows them


def _observation(responses: Sequence[str]) -> list[Turn]:
    return [Turn("observation", BETWEEN_TOOL_RESPONSES.join(responses))] if responses else []


def _role_and_content(
    message: object, place: str, layout: Layout, roles: Mapping[str, Role], *, first: bool
) -> tuple[Role | None, str]:
    """The role (None: system) and the text of a message."""
    tags = layout.tags
    if not isinstance(message, dict):
        raise invalid(
            place, f"is {kind(message)}; give an object with {tags.role_tag} and {tags.content_tag}"
        )
    for key in (tags.role_tag, tags.content_tag):
        if key not in message and not message.get("tool_calls"):
            raise invalid(place, f"has no {key!r}; it has {', '.join(map(str, message)) or 'nothing'}")
    name, content = message.get(tags.role_tag), message.get(tags.content_tag)
    if layout.formatting == "openai" and message.get("tool_calls") and roles.get(str(name)) in ANSWERS:
        return "function", _calls(message["tool_calls"], place)
    if not isinstance(content, str):
        raise invalid(f"{place}.{tags.content_tag}", f"is {kind(content)}; give a text")
    if first and tags.system_tag and name == tags.system_tag:
        return None, content
    role = roles.get(name) if isinstance(name, str) else None
    if role is None:
        raise invalid(f"{place}.{tags.role_tag}", _unknown_role(name, tags, roles))
    if role == "function":
        _refuse_other_than_calls(content, f"{place}.{tags.content_tag}")
    return role, content


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


def _refuse_disorder(turns: Sequence[Turn], column: str, layout: Layout) -> None:
    for index, turn in enumerate(turns):
        wanted = QUESTIONS if index % 2 == 0 else ANSWERS
        if turn.role not in wanted:
            found = f"turn {index + 1} (the system message not counted) is of the {turn.role}"
            raise invalid(column, f"{found}; questions and answers must take turns, a question first")
    if not turns:
        raise invalid(column, "holds no message; give a question and its answer")
    if layout.ranking and len(turns) % 2 == 0:
        raise invalid(column, "ends with an answer; the answers of a preference stand in chosen and rejected")
    if not layout.ranking and len(turns) % 2:
        raise invalid(column, "ends with a question; give its answer, or take the question out")


def _answer(row: Mapping[str, Any], column: str | None, layout: Layout) -> Turn:
    message = row.get(str(column), MISSING)
    if message is MISSING:
        raise invalid(str(column), f"missing column; the row has {', '.join(row)}")
    role, content = _role_and_content(message, str(column), layout, _roles(layout.tags), first=False)
    if role not in ANSWERS:
        raise invalid(str(column), f"is of the {role}; an answer is of the {layout.tags.assistant_tag}")
    return Turn(role, content)  # type: ignore[arg-type]


def _calls(calls: object, place: str) -> str:
    if not isinstance(calls, list) or not all(
        isinstance(call, dict) and isinstance(call.get("function"), dict) for call in calls
    ):
        raise invalid(f"{place}.tool_calls", "is not a list of objects that hold a `function`")
    text = json.dumps([_call(call["function"]) for call in calls], ensure_ascii=False)
    _refuse_other_than_calls(text, f"{place}.tool_calls")
    return text


def _call(function: dict[str, Any]) -> dict[str, Any]:
    """OpenAI writes the arguments as JSON in a text; templates of chat models expect the object."""
    try:
        return function | {"arguments": json.loads(function["arguments"])}
    except (KeyError, TypeError, ValueError):
        return function


def _refuse_other_than_calls(content: str, place: str) -> None:
    """LLaMA-Factory stops in the middle of a training at a call that is not JSON."""
    text = WRAPPERS.sub("", content).strip()
    if text.startswith("<"):  # the markup of some other template, which may wrap JSON in its own words
        return
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise invalid(place, f'is not the JSON of a call, {{"name": …, "arguments": …}}: {error}') from error
    calls = parsed if isinstance(parsed, list) else [parsed]
    if not all(isinstance(call, dict) and {"name", "arguments"} <= set(call) for call in calls):
        raise invalid(place, "is not a call; it needs `name` and `arguments`")
