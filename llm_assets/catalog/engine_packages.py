"""Which arguments need a package that LLaMA-Factory does not bring, and whether the engine's locks have it.

Read from LLaMA-Factory 0.9.5 (`_check_extra_dependencies` of hparams/parser.py, model/model_utils/,
train/fp8_utils.py) and from transformers 5.6 (trainer_optimizer.py). An engine is made of its lock alone, so
a package that is missing there can never be imported; what a later lock brings is taken at once.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from llm_assets.catalog.mistakes import Problem
from resources.engines.locks import Device, locked


@dataclass(frozen=True, kw_only=True)
class Need:
    """`argument` needs all of `packages`, with every value but its default or only with one of `values`."""

    argument: str
    packages: tuple[str, ...]
    values: tuple[str, ...] = ()

    def applies(self, value: Any) -> bool:
        return value in self.values if self.values else bool(value)


def _optimizers(package: str, *names: str) -> Need:
    return Need(argument="optim", packages=(package,), values=names)


NEEDS = (
    Need(argument="deepspeed", packages=("deepspeed",)),
    Need(argument="enable_liger_kernel", packages=("liger-kernel",)),
    Need(argument="use_liger_kernel", packages=("liger-kernel",)),
    Need(argument="flash_attn", packages=("flash-attn",), values=("fa2",)),
    Need(argument="fp8", packages=("torchao",)),
    Need(argument="mixture_of_depths", packages=("mixture-of-depth",)),
    Need(argument="quantization_bit", packages=("bitsandbytes",)),
    Need(argument="quantization_method", packages=("hqq",), values=("hqq",)),
    Need(argument="quantization_method", packages=("eetq",), values=("eetq",)),
    Need(argument="use_adam_mini", packages=("adam-mini",)),
    Need(argument="use_apollo", packages=("apollo-torch",)),
    Need(argument="use_badam", packages=("badam",)),
    Need(argument="use_galore", packages=("galore-torch",)),
    Need(argument="use_hyper_parallel", packages=("hyper-parallel",)),
    Need(argument="use_kt", packages=("kt-kernel", "transformers-kt", "accelerate-kt")),
    Need(argument="use_mca", packages=("mcore-adapter",)),
    Need(argument="use_unsloth", packages=("unsloth",)),
    _optimizers(
        "bitsandbytes",
        *("adamw_8bit", "adamw_bnb_8bit", "ademamix", "ademamix_8bit", "lion_32bit", "lion_8bit"),
        *("paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit"),
        *("paged_lion_32bit", "paged_lion_8bit", "rmsprop_bnb", "rmsprop_bnb_32bit", "rmsprop_bnb_8bit"),
    ),
    _optimizers("apex", "adamw_apex_fused"),
    _optimizers("apollo-torch", "apollo_adamw", "apollo_adamw_layerwise"),
    _optimizers(
        "galore-torch",
        *("galore_adafactor", "galore_adafactor_layerwise", "galore_adamw", "galore_adamw_8bit"),
        *("galore_adamw_8bit_layerwise", "galore_adamw_layerwise"),
    ),
    _optimizers("grokadamw", "grokadamw"),
    _optimizers("lomo-optim", "adalomo", "lomo"),
    _optimizers("schedulefree", "schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"),
    _optimizers("torch-npu", "adamw_torch_npu_fused"),
    _optimizers("torch-optimi", "stable_adamw"),
    _optimizers("torch-xla", "adamw_torch_xla"),
    _optimizers("torchao", "adamw_torch_4bit", "adamw_torch_8bit"),
    _optimizers("torchdistx", "adamw_anyprecision"),
)


@cache
def packages(device: Device | None = None) -> frozenset[str]:
    """What the train engine is made of: on one device, or on any of them."""
    devices = get_args(Device) if device is None else (device,)
    return frozenset(name for each in devices for name in locked("train", each))


def lacking(recipe: Mapping[str, object], installed: AbstractSet[str], *, where: str) -> Iterator[Problem]:
    """The recipe's arguments that need a package that is not among the `installed` ones.

    Args:
        where: Whose packages these are, for the message: `the train engine's locks`.
    """
    for need in NEEDS:
        value = recipe.get(need.argument)
        missing = [package for package in need.packages if package not in installed]
        if missing and need.applies(value):
            wanted = f"{value} needs" if need.values else "needs"
            names = ", ".join(missing)
            noun = "the package" if len(missing) == 1 else "the packages"
            problem = f"{wanted} {noun} {names}, which {where} do not have"
            valid = "leave it out" if not need.values else f"another {need.argument}, or leave it out"
            yield Problem(place=(need.argument,), problem=problem, valid=valid)
