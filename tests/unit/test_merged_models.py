"""The rule by which a merged model that is not base and adapter is kept from being served."""

from typing import Any

import pytest

from llm_assets.assets.merged_models import merged_answers_as_base_with_adapter
from resources.artifact_store.artifacts import Artifact, Line


def merged(method: str, fidelity: dict[str, Any] | None) -> Artifact:
    return Artifact(
        line=Line(collection="models", tenant="team-a", name="support_bot"),
        version="20261121T184501.123456Z-1a2b3c4d",
        files=(),
        attributes={"merge": {"method": method, "fidelity": fidelity}},
    )


def found(mean_kl: float, base_mean_kl: float = 0.5, **losses: float) -> dict[str, Any]:
    return {
        "mean_kl": mean_kl,
        "limit_mean_kl": 2e-4,
        "base_mean_kl": base_mean_kl,
        "lost_share": mean_kl / base_mean_kl,
        "positions": 172,
        "top1_agreement": 0.99,
        **{name: losses.get(name) for name in ("base_loss", "adapter_loss", "merged_loss")},
    }


def test_what_rounding_explains_passes_and_says_what_was_found() -> None:
    losses = {"base_loss": 3.2329, "adapter_loss": 3.1362, "merged_loss": 3.1361}
    verdict = merged_answers_as_base_with_adapter(merged("stream", found(3e-5, **losses)))
    assert verdict.holds
    assert verdict.why == (
        "Mean KL 3e-05 from base and adapter at 172 tokens; rounding may make it 0.0002, and the base "
        "alone has 0.5. Loss on held-out rows: 3.2329 of the base, 3.1362 with the adapter, 3.1361 merged."
    )
    assert verdict.figures["mean_kl"] == 3e-5
    assert verdict.figures["merged_loss"] == 3.1361


@pytest.mark.parametrize("base_mean_kl", [2.2e-3, 0.5, 5.0])
def test_what_rounding_does_not_explain_fails_however_much_the_adapter_changes(base_mean_kl: float) -> None:
    verdict = merged_answers_as_base_with_adapter(merged("stream", found(2.1e-4, base_mean_kl)))
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
    verdict = merged_answers_as_base_with_adapter(merged(method, found(1.4e-4, base_mean_kl=2.5e-4)))
    assert not verdict.holds
    assert verdict.why.startswith("Merged, 56% of what the adapter changes is lost: ")
    assert remedy in verdict.why


def test_what_was_not_compared_says_so() -> None:
    full = merged_answers_as_base_with_adapter(merged("trained in full", None))
    assert (full.holds, full.why) == (True, "The model was trained in full: nothing was merged.")
    assert merged_answers_as_base_with_adapter(merged("export", None)).why.startswith("Not compared: ")
