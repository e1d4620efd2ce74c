"""The work order `import_gguf`: a GGUF file becomes a folder of safetensors, tokenizer and chat template.

Order: source_folder, gguf_file (its name there), output_folder, scratch_folder, dtype. Weights are
dequantized, so quantization's losses stay in.
Not covered: tokenizers that GGUF describes by a name that transformers does not know.
"""

import functools
import shutil
from pathlib import Path
from typing import Any

from llm_assets.workers import fast_tokenizer, gguf_tokenizer, machine
from llm_assets.workers.failures import WorkerError
from llm_assets.workers.reporting import Order, Report, Result, work


def run(order: Order, report: Report) -> Result:
    """Leaves the model in output_folder, in Hugging Face form."""
    file, output = Path(order["source_folder"]) / order["gguf_file"], Path(order["output_folder"])
    shutil.rmtree(output, ignore_errors=True)
    machine.prepare("cpu", cache=Path(order["scratch_folder"]) / "cache")
    fields = _read(file)
    name, architecture = fields.get("general.name", "a model"), fields["general.architecture"]
    report.line(f"Reads {file.name}: {name}, {architecture}.")
    model = _model(file, order["dtype"])
    report.line(f"Dequantized {model.num_parameters():,} parameters; writes them as safetensors.")
    model.config._name_or_path = ""
    model.save_pretrained(output)
    tokenizer = gguf_tokenizer.build(file, fields)
    tokenizer.save_pretrained(output)
    if not (output / fast_tokenizer.TOKENIZER_FILE).is_file():
        fast_tokenizer.add(output, report)
    return {
        "architecture": model.config.architectures[0],
        "parameters": model.num_parameters(),
        "dtype": order["dtype"],
        "licence": fields.get("general.license"),
        "chat_template": bool(tokenizer.chat_template),
        **machine.peak_memory(),
        "engine_versions": machine.engine_versions(),
    }


def _read(file: Path) -> dict[str, Any]:
    """The file's metadata. transformers opens the file four times, 3 s each, so readers are kept."""
    import gguf

    gguf.GGUFReader = functools.cache(gguf.GGUFReader)
    try:
        reader = gguf.GGUFReader(str(file))
    except (ValueError, IndexError) as error:
        raise WorkerError(f"{file} is no whole GGUF file: {error}. Fetch it again.") from error
    architecture = str(reader.fields["general.architecture"].contents())
    wanted = ("general.", "tokenizer.", f"{architecture}.")
    return {name: field.contents() for name, field in reader.fields.items() if name.startswith(wanted)}


def _model(file: Path, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=getattr(torch, dtype))


if __name__ == "__main__":
    work(run)
