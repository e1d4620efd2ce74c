"""Reads rows of LLaMA-Factory's ShareGPT layout and of OpenAI's chat format.

What is taken is what `SharegptDatasetConverter` and `OpenAIDatasetConverter` take: a system message at
most as the first one, then questions (user, observation) and answers (assistant, function) in turn, an
answer last. LLaMA-Factory drops other rows with a warning; here they are refused. One thing is left
out on purpose: its `openai` formatting adds "detailed thinking off" to every system message.

One thing is taken that LLaMA-Factory cannot do: answers that are not learned from (OpenAI's `weight: 0`);
`llm_assets/workers/masked_answers.py` teaches it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llm_assets.datasets.examples import (
    MISSING,
    Example,
    Turn,
    desirable,
    invalid,
    kind,
    optional_text,
    tools_text,
)
from llm_assets.datasets.layouts import Layout
from llm_assets.datasets.messages import ANSWERS, Message, read_message
from llm_assets.datasets.remarks import Remark, left_out

QUESTIONS = ("user", "observation")
BETWEEN_TOOL_RESPONSES = "\n</tool_response>\n<tool_response>\n"
NOTHING_LEARNED = "no answer of it is to be learned from; set one to 1, or take the row out"
LAST_RESPONSES = left_out("tool responses after the last answer are dropped, as LLaMA-Factory does")
LAST_MASKED = left_out("what comes after the last answer to learn from is dropped: nothing is learned there")
OTHER_SYSTEM = left_out("the system column is not used where the conversation has a system message")


class Conversation(NamedTuple):
    """The turns of a row; `system` is None where no message is the system's."""

    system: str | None
    turns: list[Turn]
    remarks: list[Remark]


def read_conversation(row: Mapping[str, object], layout: Layout) -> Example:
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
    system, turns, remarks = _conversation(messages, layout)
    _refuse_disorder(turns, column, layout)
    tag = desirable(row, layout.kto_tag) if layout.kto_tag else None
    if layout.ranking:
        asked = _unmasked(turns)
        answers = [_answer(row, name, layout, remarks) for name in (layout.chosen, layout.rejected)]
    else:
        turns = _learned(turns, column, layout, remarks)
        asked, answers = turns[:-1], turns[-1:]
    said = optional_text(row, layout.system)
    if system is not None and said and said != system:
        remarks.append(OTHER_SYSTEM)
    return Example(
        turns=tuple(asked),
        answers=tuple(answers),
        system=said if system is None else system,
        tools=tools_text(row, layout.tools),
        desirable=tag,
        remarks=tuple(remarks),
    )


def _conversation(messages: list[Any], layout: Layout) -> Conversation:
    system: str | None = None
    turns: list[Turn] = []
    remarks: list[Remark] = []
    responses: list[str] = []
    for index, each in enumerate(messages):
        message = read_message(each, f"{layout.messages}[{index}]", layout, first=index == 0)
        remarks += message.remarks
        if message.role is None:
            system = message.content
        elif layout.formatting == "openai" and message.role == "observation":
            responses.append(message.content)
        else:
            turns += _observation(responses)
            responses = []
            turns.append(Turn(message.role, message.content, message.masked))
    if responses:
        remarks.append(LAST_RESPONSES)
    return Conversation(system, turns, remarks)


def _observation(responses: Sequence[str]) -> list[Turn]:
    return [Turn("observation", BETWEEN_TOOL_RESPONSES.join(responses))] if responses else []


def _learned(turns: list[Turn], column: str, layout: Layout, remarks: list[Remark]) -> list[Turn]:
    """The turns up to the last one that is learned from; of a KTO row that is always the last."""
    if layout.kto_tag:
        if turns[-1].masked:
            raise invalid(column, NOTHING_LEARNED)
        return _unmasked(turns)
    learned = [index for index, turn in enumerate(turns) if turn.role in ANSWERS and not turn.masked]
    if not learned:
        raise invalid(column, NOTHING_LEARNED)
    if learned[-1] < len(turns) - 1:
        remarks.append(LAST_MASKED)
    return turns[: learned[-1] + 1]


def _unmasked(turns: Sequence[Turn]) -> list[Turn]:
    """In these stages no earlier answer is ever learned from."""
    return [turn._replace(masked=False) for turn in turns]


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


def _answer(row: Mapping[str, object], column: str | None, layout: Layout, remarks: list[Remark]) -> Turn:
    written = row.get(str(column), MISSING)
    if written is MISSING:
        raise invalid(str(column), f"missing column; the row has {', '.join(row)}")
    message: Message = read_message(written, str(column), layout, first=False)
    if message.role not in ANSWERS:
        raise invalid(
            str(column), f"is of the {message.role}; an answer is of the {layout.tags.assistant_tag}"
        )
    if message.masked:
        raise invalid(str(column), "is not to be learned from; a preference learns from both its answers")
    remarks += message.remarks
    return Turn(message.role, message.content)  # type: ignore[arg-type]
