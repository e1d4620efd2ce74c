"""The mean loss (nats a token) of each answer of conversations, with the messages before it as their context.

Run in the train engine; the adapter's folder may be left out:

    python -m tests.e2e.answer_losses CONVERSATIONS.json RESULT.json BASE [ADAPTER]
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(conversations: Path, result: Path, base: Path, *adapters: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for adapter in adapters:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    model.eval()

    def ids(messages: list[dict[str, Any]], *, asks: bool) -> list[int]:
        said = tokenizer.apply_chat_template(messages, add_generation_prompt=asks, return_dict=False)
        return list(said)

    def loss(messages: list[dict[str, Any]]) -> float:
        before, whole = ids(messages[:-1], asks=True), ids(messages, asks=False)
        assert whole[: len(before)] == before
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0, len(before) - 1 : -1]
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(whole[len(before) :])))

    read = json.loads(conversations.read_text())
    losses = [[loss(messages[: index + 1]) for index in range(1, len(messages), 2)] for messages in read]
    result.write_text(json.dumps(losses))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
