"""What LLaMA-Factory itself says of recipes: run in the train engine, recipes on stdin, verdicts on stdout.

A recipe is what `training_arguments.planned` makes of it; the verdict is the engine's complaint, or null.
"""

import json
import sys
from typing import Any

# What the platform adds to every recipe, without the folders that a real order has.
OWNED = {
    "model_name_or_path": "base",
    "template": "smollm2",
    "dataset": "train",
    "output_dir": "never-written",
    "do_train": True,
    "report_to": "none",
    "use_cpu": True,
}


def verdict(recipe: dict[str, Any]) -> str | None:
    from llamafactory.hparams import get_train_args
    from transformers import Trainer

    held_out = {"eval_dataset": "held_out"} if recipe.get("eval_strategy", "no") != "no" else {}
    try:
        _, _, training, *_ = get_train_args(recipe | OWNED | held_out)
        if not training.optim.startswith(("galore", "apollo", "lomo", "adalomo")):
            Trainer.get_optimizer_cls_and_kwargs(training)
    except (ImportError, ValueError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    verdicts = [verdict(recipe) for recipe in json.load(sys.stdin)]
    print("\n" + json.dumps(verdicts))
