"""The names of the assets: `[group, name]`, the same in every environment."""

import dagster as dg

BASE_MODELS = "base_models"
DATASET = "dataset"
LORA_ADAPTER = "lora_adapter"
MERGED_MODEL = "merged_model"
MODEL_CARD = "model_card"
VLLM_DEPLOYMENT = "vllm_deployment"
GATEWAY = "gateway"
USAGE_KEY = dg.AssetKey([GATEWAY, "usage"])


def base_model_key(base_model: str) -> dg.AssetKey:
    return dg.AssetKey([BASE_MODELS, base_model])


def model_key(model: str, kind: str) -> dg.AssetKey:
    """The asset of `model` that is its `dataset`, `lora_adapter` and so on."""
    return dg.AssetKey([model, kind])
