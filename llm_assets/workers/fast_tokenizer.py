"""The work order `fast_tokenizer`: writes the tokenizer.json that a base model's folder lacks.

Older models carry only a sentencepiece file. Order: model_folder. transformers converts it; the
platform counts tokens with the result and never imports an engine.
"""

from pathlib import Path

from llm_assets.workers.failures import WorkerError
from llm_assets.workers.reporting import Order, Report, Result, work

TOKENIZER_FILE = "tokenizer.json"


def run(order: Order, report: Report) -> Result:
    """Writes `tokenizer.json` beside the other tokenizer files."""
    from transformers import AutoTokenizer

    folder = Path(order["model_folder"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.is_fast:
        raise WorkerError(
            f"{folder} has no {TOKENIZER_FILE}, and transformers cannot make one of its tokenizer "
            f"({type(tokenizer).__name__}). Add the file to the base model's folder."
        )
    tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_FILE))
    report.line(f"Wrote {TOKENIZER_FILE}, which the base model came without.")
    return {"vocabulary": len(tokenizer)}


if __name__ == "__main__":
    work(run)
