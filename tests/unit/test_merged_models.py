"""The rule by which a merged model that is not base and adapter is kept from being served."""

from typing import Any

from llm_assets.assets.merged_models import merged_answers_as_base_with_adapter
from resources.artifact_store.artifacts import Artifact, Line


def merged(method: str, fidelity: dict[str, Any] | None) -> Artifact:
    return Artifact(
        line=Line(collection="models", tenant="team-a", name="support_bot"),
        version="20261121T184501.123456Z-1a2b3c4d",
        files=(),
        attributes={"merge": {"method": method, "fidelity": fidelity}},
    )


def found(mean_kl: float) -> dict[str, Any]:
    return {"mean_kl": mean_kl, "limit_mean_kl": 2e-4, "positions": 172, "top1_agreement": 0.99}


def test_what_rounding_explains_passes_and_what_it_does_not_fails() -> None:
    assert merged_answers_as_base_with_adapter(merged("stream", found(3e-5))).holds
    verdict = merged_answers_as_base_with_adapter(merged("stream", found(3e-4)))
    assert not verdict.holds
    assert verdict.why == (
        "Mean KL 0.0003 at 172 tokens, at most 0.0002 is rounding; the same likeliest token at 99.0%."
    )
    assert verdict.figures["mean_kl"] == 3e-4


def test_what_was_not_compared_says_so() -> None:
    full = merged_answers_as_base_with_adapter(merged("trained in full", None))
    assert (full.holds, full.why) == (True, "The model was trained in full: nothing was merged.")
    assert merged_answers_as_base_with_adapter(merged("export", None)).why.startswith("Not compared: ")
