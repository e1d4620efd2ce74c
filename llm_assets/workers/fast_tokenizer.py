"""The work order `fast_tokenizer`: a base model's folder with the tokenizer.json that it lacks.

Older models carry only a sentencepiece file. Order: source_folder, output_folder. transformers converts it;
the platform counts tokens with the result and never imports an engine.
"""

import shutil
from pathlib import Path

from llm_assets.workers import trained_files
from llm_assets.workers.failures import WorkerError
from llm_assets.workers.reporting import Order, Report, Result, work

TOKENIZER_FILE = "tokenizer.json"


def run(order: Order, report: Report) -> Result:
    """Leaves in output_folder the model's files and `tokenizer.json`."""
    output = Path(order["output_folder"])
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    for file in sorted(Path(order["source_folder"]).iterdir()):
        trained_files.link_or_copy(file, output / file.name)
    return {"vocabulary": add(output, report)}


def add(folder: Path, report: Report) -> int:
    """Writes it beside the other tokenizer files; gives the size of the vocabulary."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.is_fast:
        raise WorkerError(
            f"{folder} has no {TOKENIZER_FILE}, and transformers cannot make one of its tokenizer "
            f"({type(tokenizer).__name__}). Add the file to the base model's folder."
        )
    tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_FILE))
    report.line(f"Wrote {TOKENIZER_FILE}, which the base model came without.")
    return len(tokenizer)


if __name__ == "__main__":
    work(run)
