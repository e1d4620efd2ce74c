"""The fidelity reports of a merged model, against each of some adapters.

Run in the train engine: `python -m tests.e2e.fidelity_of BASE MERGED ADAPTER…`; prints JSON last.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tests.e2e.adapted_models import QUESTIONS, RECIPE, Printed
from tests.e2e.tiny_model import TEMPLATE


def report(base: str, merged: str, adapter: str) -> dict[str, Any] | None:
    from llm_assets.workers import chat_template, fidelity

    rows = [{"messages": [{"role": "user", "content": each}], "reply": "It is so."} for each in QUESTIONS]
    order = {"base_folder": base, "output_folder": merged, "adapter_folder": adapter, "held_out": rows}
    encoding = chat_template.Encoding(Path(merged), TEMPLATE, RECIPE)
    return fidelity.compare(order, encoding, [], "bfloat16", Printed(), at_random=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    base, merged, *adapters = sys.argv[1:]
    print(json.dumps([report(base, merged, adapter) for adapter in adapters]))
