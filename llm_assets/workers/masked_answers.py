"""Teaches LLaMA-Factory answers that are read and not learned from (OpenAI's `weight: 0`).

Its 0.9.5 can learn from all answers of a conversation or from the last one alone. Here an answer that is
not to be learned from becomes a part of the question after it, so the engine's own code masks its tokens
like the question's; the tokens themselves, and those of all other answers, stay the same. Two of the engine's
places are replaced: `encode_multiturn` of its templates, and its list of converters, which gets one more.

Only rows of the formatting `sharegpt_masked` are treated so. Not covered: `train_on_prompt`, which learns
from questions too; the platform refuses the two together.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORMATTING = "sharegpt_masked"
MASKED = "masked"

Pairs = list[tuple[list[int], list[int]]]


def install(dataset_folder: Path) -> bool:
    """Makes the engine of this process read the dataset's masks; says whether the dataset has any."""
    info = json.loads((dataset_folder / "dataset_info.json").read_text(encoding="utf-8"))
    if not any(entry.get("formatting") == FORMATTING for entry in info.values()):
        return False
    from llamafactory.data.converter import DATASET_CONVERTERS, register_dataset_converter
    from llamafactory.data.template import ReasoningTemplate, Template

    if FORMATTING not in DATASET_CONVERTERS:
        register_dataset_converter(FORMATTING, _converter())
        for template in (Template, ReasoningTemplate):  # each has an encode_multiturn of its own
            template.encode_multiturn = _masking(template.encode_multiturn)
    return True


def _converter() -> type:
    from llamafactory.data.converter import SharegptDatasetConverter

    class MaskingConverter(SharegptDatasetConverter):  # type: ignore[misc]
        """Carries the mask of each message along; the engine passes messages on as they are."""

        def __call__(self, example: dict[str, Any]) -> dict[str, Any]:
            converted: dict[str, Any] = super().__call__(example)
            kept = [*converted["_prompt"], *converted["_response"]]
            messages = example[self.dataset_attr.messages]
            without_system = messages[len(messages) - len(kept) :]
            for message, said in zip(kept, without_system, strict=True):
                message[MASKED] = said[MASKED]
            return converted

    return MaskingConverter


def _masking(encode: Callable[..., Pairs]) -> Callable[..., Pairs]:
    def encode_masked(
        self: Any, tokenizer: Any, messages: list[dict[str, Any]], *args: Any, **named: Any
    ) -> Pairs:
        pairs = encode(self, tokenizer, messages, *args, **named)
        return merged(pairs, [bool(answer.get(MASKED)) for answer in messages[1::2]])

    return encode_masked


def merged(pairs: Pairs, masked: list[bool]) -> Pairs:
    """The pairs of question and answer to learn, in tokens; the last answer is never masked."""
    learned: Pairs = []
    before: list[int] = []
    for (question, answer), is_masked in zip(pairs, masked, strict=True):
        before = before + question
        if is_masked:
            before = before + answer
        else:
            learned.append((before, answer))
            before = []
    return learned
