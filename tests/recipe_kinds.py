"""What a recipe may ask for, by kind: which step of the chain refuses it, where, and that nothing else does.

The steps are `check`'s own: the recipe's rules, the merge (a stream or an export, of a base with one tensor
of embeddings or two), and vLLM. A test walks the table over stages, merges and modes, and a long one lets the
engine train and merge whatever is not refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STAGES = ("sft", "dpo", "kto", "pt", "rm")
MERGES = ("stream", "export")
MODES = ("merged", "adapter", "none")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """`never` and `in_stage` are the keys that are refused as they are, `as_adapter` those in that mode.

    `tied_export`: the key that an export of a base with tied embeddings gets wrong; `tied`: any merge of it.
    """

    recipe: Mapping[str, Any]
    never: frozenset[str] = frozenset()
    in_stage: Mapping[str, frozenset[str]] = field(default_factory=dict)
    as_adapter: frozenset[str] = frozenset()
    tied_export: frozenset[str] = frozenset()
    tied: frozenset[str] = frozenset()

    def refused(self, *, stage: str, merge: str, mode: str, tied: bool) -> frozenset[str]:
        """The keys that `check` names for a recipe of this kind."""
        keys = self.never | self.in_stage.get(stage, frozenset())
        if tied:
            keys |= self.tied | (self.tied_export if merge == "export" else frozenset())
        if mode == "adapter":
            keys |= self.as_adapter
        return keys | (frozenset({"stage"}) if stage == "rm" and mode != "none" else frozenset())


def _keys(*names: str) -> frozenset[str]:
    return frozenset(names)


_BOTH = "embed_tokens,lm_head"
_PISSA = {stage: _keys("pissa_init") for stage in ("dpo", "kto", "rm")}
_COMPARED = {stage: _keys("add_tokens") for stage in ("dpo", "kto")}

KINDS: dict[str, Kind] = {
    "lora": Kind(recipe={}),
    "rslora": Kind(recipe={"use_rslora": True}),
    "dora": Kind(recipe={"use_dora": True}, as_adapter=_keys("use_dora")),
    "dora and rslora": Kind(recipe={"use_dora": True, "use_rslora": True}, as_adapter=_keys("use_dora")),
    "loraplus": Kind(recipe={"loraplus_lr_ratio": 4.0}),
    "some layers": Kind(recipe={"use_llama_pro": True, "freeze_trainable_layers": 1}),
    "norms in float32": Kind(recipe={"upcast_layernorm": True}),
    "rank 1024": Kind(recipe={"lora_rank": 1024}, as_adapter=_keys("lora_rank")),
    "4 bits": Kind(recipe={"quantization_bit": 4}),
    "8 bits": Kind(recipe={"quantization_bit": 8}),
    "4 bits and rslora": Kind(recipe={"quantization_bit": 4, "use_rslora": True}),
    "4 bits and dora": Kind(
        recipe={"quantization_bit": 4, "use_dora": True},
        never=_keys("use_dora"),
        as_adapter=_keys("use_dora"),
    ),
    "4 bits and embeddings": Kind(
        recipe={"quantization_bit": 4, "additional_target": _BOTH}, as_adapter=_keys("additional_target")
    ),
    "4 bits and new tokens": Kind(
        recipe={"quantization_bit": 4, "add_tokens": "[a]"},
        never=_keys("add_tokens"),
        as_adapter=_keys("add_tokens"),
    ),
    "embeddings": Kind(recipe={"additional_target": _BOTH}, as_adapter=_keys("additional_target")),
    "output embeddings": Kind(recipe={"additional_target": "lm_head"}, as_adapter=_keys("additional_target")),
    "norms": Kind(recipe={"additional_target": "norm"}, as_adapter=_keys("additional_target")),
    "dora and embeddings": Kind(
        recipe={"use_dora": True, "additional_target": _BOTH},
        as_adapter=_keys("use_dora", "additional_target"),
    ),
    "lora on the output embeddings": Kind(
        recipe={"lora_target": "q_proj,lm_head"}, tied_export=_keys("lora_target")
    ),
    "lora on the input embeddings": Kind(
        recipe={"lora_target": "q_proj,embed_tokens"}, tied_export=_keys("lora_target")
    ),
    "dora on the input embeddings": Kind(
        recipe={"use_dora": True, "lora_target": "q_proj,embed_tokens"},
        as_adapter=_keys("use_dora"),
        tied_export=_keys("lora_target"),
    ),
    "new tokens": Kind(recipe={"add_tokens": "[a],[b]"}, as_adapter=_keys("add_tokens")),
    "new special tokens": Kind(
        recipe={"add_special_tokens": "[a],[b]"}, as_adapter=_keys("add_special_tokens")
    ),
    "a resized vocabulary": Kind(recipe={"resize_vocab": True}, as_adapter=_keys("resize_vocab")),
    "new tokens and dora": Kind(
        recipe={"add_tokens": "[a]", "use_dora": True}, as_adapter=_keys("add_tokens", "use_dora")
    ),
    "new tokens and norms": Kind(
        recipe={"add_tokens": "[a]", "additional_target": "norm"},
        never=_keys("additional_target"),
        as_adapter=_keys("add_tokens", "additional_target"),
    ),
    "new tokens and lora on the output embeddings": Kind(
        recipe={"add_tokens": "[a]", "lora_target": "q_proj,lm_head"},
        as_adapter=_keys("add_tokens"),
        tied=_keys("lora_target"),
    ),
    "pissa": Kind(recipe={"pissa_init": True}, in_stage=_PISSA, as_adapter=_keys("pissa_init")),
    "pissa and dora": Kind(
        recipe={"pissa_init": True, "use_dora": True},
        in_stage=_PISSA,
        as_adapter=_keys("pissa_init", "use_dora"),
    ),
    "pissa and rslora": Kind(
        recipe={"pissa_init": True, "use_rslora": True}, in_stage=_PISSA, as_adapter=_keys("pissa_init")
    ),
    "pissa and embeddings": Kind(
        recipe={"pissa_init": True, "additional_target": _BOTH},
        in_stage=_PISSA,
        as_adapter=_keys("pissa_init", "additional_target"),
    ),
    "pissa and lora on the input embeddings": Kind(
        recipe={"pissa_init": True, "lora_target": "q_proj,embed_tokens"},
        in_stage=_PISSA,
        as_adapter=_keys("pissa_init"),
        tied_export=_keys("lora_target"),
    ),
    "pissa and lora on the output embeddings": Kind(
        # half of the rank there is: taking the first state out twice would be seen
        recipe={"pissa_init": True, "lora_rank": 32, "lora_target": "q_proj,lm_head"},
        in_stage=_PISSA,
        as_adapter=_keys("pissa_init"),
        tied=_keys("lora_target"),
    ),
    "pissa and new tokens": Kind(
        recipe={"pissa_init": True, "add_tokens": "[a]"},
        in_stage=_PISSA,
        as_adapter=_keys("pissa_init", "add_tokens"),
    ),
    "pissa and 4 bits": Kind(
        recipe={"pissa_init": True, "quantization_bit": 4},
        never=_keys("pissa_init"),
        as_adapter=_keys("pissa_init"),
    ),
    "full": Kind(recipe={"finetuning_type": "full"}, as_adapter=_keys("finetuning_type")),
    "full and new tokens": Kind(
        recipe={"finetuning_type": "full", "add_tokens": "[a]"},
        in_stage=_COMPARED,
        as_adapter=_keys("finetuning_type", "add_tokens"),
    ),
    "full and a resized vocabulary": Kind(
        recipe={"finetuning_type": "full", "resize_vocab": True},
        as_adapter=_keys("finetuning_type", "resize_vocab"),
    ),
    "full and 4 bits": Kind(
        recipe={"finetuning_type": "full", "quantization_bit": 4},
        never=_keys("quantization_bit"),
        as_adapter=_keys("finetuning_type"),
    ),
    "oft": Kind(recipe={"finetuning_type": "oft"}, never=_keys("finetuning_type")),
    "freeze": Kind(recipe={"finetuning_type": "freeze"}, never=_keys("finetuning_type")),
}
