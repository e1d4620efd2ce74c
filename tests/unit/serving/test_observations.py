"""What the Dagster UI is told of a deployment."""

from dataclasses import replace

from llm_assets.sensors.deployments import observation
from resources.seams.serving import Backend, Deployment

LIVE = Backend(
    id="b1", version="v1", digest="sha256:1", fingerprint="f", address="unix:1", weight=90, since=1.0
)
DEAD = replace(
    LIVE, id="b2", version="v2", digest="sha256:2", weight=10, status="dead", why="v2 died: no room."
)
DEGRADED = Deployment(
    tenant="team-a", model="support_bot", status="degraded", why=DEAD.why, backends=(LIVE, DEAD)
)


def test_an_observation_has_every_version_with_its_weight_and_digest() -> None:
    facts = {name: value.value for name, value in observation(DEGRADED).metadata.items()}
    assert facts["llm/state"] == "degraded"
    assert facts["llm/why"] == DEAD.why
    assert facts["llm/digest"] == LIVE.digest
    rows = str(facts["llm/backends"]).splitlines()
    assert rows[2] == "| v1 | 90 | sha256:1 |"
    assert rows[3].startswith("| v2 | 10 | sha256:2 |")
