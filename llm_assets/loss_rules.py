"""Did a training's loss fall as far as the model's file asks? The rule of an adapter's check and a promotion.

The training loss of single batches is noise, so the means over the first and the last logged losses are
compared (`llm_assets/workers/training_log.py`), and the fall counts as missed only where noise of the size
that the curve itself shows would not explain it: with `CERTAINTY` standard errors, a training that learns
nothing and gets no worse fails in fewer than 1 of 100 cases, however short it is. The held-out loss is that
of the same rows before and after, so it has no such noise.

Not noticed in the training loss: anything in fewer than five logged losses, and a jump among the first ones
that stays, because what was before it is forgotten. The held-out loss shows both.
"""

from collections.abc import Mapping

from llm_assets.catalog.models import Thresholds

CERTAINTY = 3.5  # standard errors; tests/unit/test_loss_rules.py measures what that means

LOSSES = ("first_loss", "final_loss", "loss_noise", "eval_loss_before", "eval_loss")
Measured = Mapping[str, float | None]
"""By the names in `LOSSES`, as far as they were measured; other measurements may stand beside them."""


def missed_fall(asked: Thresholds, measured: Measured) -> str | None:
    """Why the loss did not fall as it should, with the figures; None where it did, or nobody asks."""
    if asked.loss == "none":
        return None
    before, after, noise = compared(asked, measured)
    if before is None or after is None:
        unknown = _not_measured(asked)
        return unknown if asked.loss == "held_out" or asked.min_loss_drop > 0 else None
    if after - before * (1 - asked.min_loss_drop) <= CERTAINTY * noise:  # false where one is not a number
        return None
    return f"{_went(asked, before, after)}, not down by {asked.min_loss_drop:.0%}{_despite(noise)}"


def found_fall(asked: Thresholds, measured: Measured) -> str:
    """What was found where nothing was missed, in a sentence."""
    if asked.loss == "none":
        return "The model asks for no fall of the loss (thresholds.loss: none)."
    before, after, noise = compared(asked, measured)
    if before is None or after is None:
        return f"{_not_measured(asked)}, and the model asks for no fall."
    within = f"; differences up to {CERTAINTY * noise:.2g} are noise" if noise else ""
    asks = f"a fall of at least {asked.min_loss_drop:.0%} is asked for"
    said = f"{_went(asked, before, after)}; {asks}{within}."
    return said[0].upper() + said[1:]


def compared(asked: Thresholds, measured: Measured) -> tuple[float | None, float | None, float]:
    """The loss before, the loss after, and the standard error of their difference."""
    if asked.loss == "held_out":
        return measured.get("eval_loss_before"), measured.get("eval_loss"), 0.0
    return measured.get("first_loss"), measured.get("final_loss"), measured.get("loss_noise") or 0.0


def _not_measured(asked: Thresholds) -> str:
    which = "held-out loss before and after the training" if asked.loss == "held_out" else "training loss"
    return f"no {which} was recorded"


def _went(asked: Thresholds, before: float, after: float) -> str:
    which = "held-out" if asked.loss == "held_out" else "training"
    return f"the {which} loss went from {before:.4g} to {after:.4g}"


def _despite(noise: float) -> str:
    return f" (differences up to {CERTAINTY * noise:.2g} would be noise)" if noise else ""
