"""Run by the engine's Python: loads datasets as LLaMA-Factory's own training does, and prints their tokens.

    python load_with_engine.py <tokenizer.json> <stage>:<template>:<folder> …

prints one line of JSON: for each place the token ids of the rows that its dataset `train` kept.
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from llm_assets.workers import masked_answers


def main() -> None:
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=sys.argv[1], eos_token="<|im_end|>", bos_token="<|im_start|>", pad_token="<|pad|>"
    )
    loaded = {}
    with contextlib.redirect_stdout(sys.stderr):
        for place in sys.argv[2:]:
            stage, name, folder = place.split(":", 2)
            data = DataArguments(
                template=name,
                dataset="train",
                dataset_dir=folder,
                cutoff_len=8192,
                overwrite_cache=True,
                preprocessing_num_workers=2 if name == "qwen3" else None,
            )
            masked_answers.install(Path(folder))
            template = get_template_and_fix_tokenizer(tokenizer, data)
            loaded[place] = tokens(stage, folder, data, template, tokenizer)
    print(json.dumps(loaded))


def tokens(stage: str, folder: str, data: Any, template: Any, tokenizer: Any) -> list[dict[str, Any]]:
    from llamafactory.data import get_dataset
    from llamafactory.hparams import ModelArguments
    from transformers import Seq2SeqTrainingArguments

    model = ModelArguments(model_name_or_path="none", cache_dir=f"{folder}/cache")
    training = Seq2SeqTrainingArguments(output_dir=f"{folder}/trained", report_to=[], use_cpu=True)
    rows = get_dataset(template, model, data, training, stage=stage, tokenizer=tokenizer)["train_dataset"]
    return [{name: value for name, value in row.items() if "ids" in name or name == "labels"} for row in rows]


if __name__ == "__main__":
    main()
