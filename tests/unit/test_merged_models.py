"""The rule by which a merged model that is not base and adapter is kept from being served."""

import pytest

from llm_assets.assets.merged_models import verdict_of
from llm_assets.manifests import Fidelity, Merge


def merged(method: str, fidelity: Fidelity | None) -> Merge:
    return Merge(method=method, answers=(), fidelity=fidelity)


def found(mean_kl: float, base_mean_kl: float = 0.5, **losses: float) -> Fidelity:
    return Fidelity(
        mean_kl=mean_kl,
        max_kl=mean_kl,
        limit_mean_kl=2e-4,
        base_mean_kl=base_mean_kl,
        rounded_mean_kl=2e-5,
        lost_share=mean_kl / base_mean_kl,
        positions=172,
        top1_agreement=0.99,
        held_out_prompts=0,
        computed_on="cpu",
        prompts=(),
        seconds=1.0,
        peak_memory_bytes=2**30,
        **losses,
    )


def test_what_rounding_explains_passes_and_says_what_was_found() -> None:
    losses = {"base_loss": 3.2329, "adapter_loss": 3.1362, "merged_loss": 3.1361}
    verdict = verdict_of(merged("stream", found(3e-5, **losses)))
    assert verdict.holds
    assert verdict.why == (
        "Mean KL 3e-05 from base and adapter at 172 tokens; rounding may make it 0.0002, and the base "
        "alone has 0.5. Loss on held-out rows: 3.2329 of the base, 3.1362 with the adapter, 3.1361 merged."
    )
    assert verdict.figures["mean_kl"] == 3e-5
    assert verdict.figures["merged_loss"] == 3.1361


@pytest.mark.parametrize("base_mean_kl", [2.2e-3, 0.5, 5.0])
def test_what_rounding_does_not_explain_fails_however_much_the_adapter_changes(base_mean_kl: float) -> None:
    verdict = verdict_of(merged("stream", found(2.1e-4, base_mean_kl)))
    assert not verdict.holds
    assert "further from base and adapter than rounding takes it" in verdict.why
    assert "merged_loss" not in verdict.figures, "there were no held-out rows"


@pytest.mark.parametrize(
    ("method", "remedy"),
    [
        ("export", "Give the model's file `merge: stream`, which rounds at random"),
        ("stream", "Give the model's file `serving.mode: adapter`, or train longer"),
    ],
)
def test_a_merge_that_loses_the_adapter_says_so_and_what_helps(method: str, remedy: str) -> None:
    verdict = verdict_of(merged(method, found(1.4e-4, base_mean_kl=2.5e-4)))
    assert not verdict.holds
    assert verdict.why.startswith("Merged, 56% of what the adapter changes is lost: ")
    assert remedy in verdict.why


def test_what_was_not_compared_says_so() -> None:
    full = verdict_of(merged("trained in full", None))
    assert (full.holds, full.why) == (True, "The model was trained in full: nothing was merged.")
    assert verdict_of(merged("export", None)).why.startswith("Not compared: ")
