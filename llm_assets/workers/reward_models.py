"""What a reward model (stage `rm`) lacks to be trained like the others. Only called with one.

TRL wraps it in a class that is no PreTrainedModel: the trainer then counts no FLOP, and cannot save
a model that was trained in full when its input and output embeddings are one tensor (safetensors
refuses to write it twice). Source: transformers 5.6 `Trainer._save`, `Trainer.floating_point_ops`.
"""

from typing import Any


def is_reward_model(model: Any) -> bool:
    return hasattr(model, "v_head")


def complete(model: Any) -> None:
    """Lets the trainer count the wrapped model's FLOP and save each tied tensor once."""
    wrapped = model.pretrained_model
    model.num_parameters = wrapped.num_parameters
    tied = getattr(wrapped, "all_tied_weights_keys", None)
    if tied:
        wrapped.register_state_dict_post_hook(_without(tuple(tied)))


def _without(tied: tuple[str, ...]) -> Any:
    def drop(_module: Any, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
        for name in tied:
            state.pop(f"{prefix}{name}", None)

    return drop
