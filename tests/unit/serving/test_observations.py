"""What the Dagster UI is told of a deployment."""

from llm_assets.sensors.deployments import observation
from resources.serving.routes import BackendState, DeploymentState

LIVE = BackendState(version="v1", digest="sha256:1", weight=90, status="live", since=1.0)
DEAD = BackendState(
    version="v2",
    digest="sha256:2",
    weight=10,
    status="dead",
    since=1.0,
    why="v2 died: no room.",
)
DEGRADED = DeploymentState(
    tenant="team-a",
    model="support_bot",
    status="degraded",
    version="v1",
    digest="sha256:1",
    since=1.0,
    why=DEAD.why,
    backends=(LIVE, DEAD),
)


def test_an_observation_has_every_version_with_its_weight_and_digest() -> None:
    facts = {name: value.value for name, value in observation(DEGRADED).metadata.items()}
    assert facts["llm/state"] == "degraded"
    assert facts["llm/why"] == DEAD.why
    rows = str(facts["llm/backends"]).splitlines()
    assert rows[2] == "| v1 | 90 | sha256:1 |"
    assert rows[3].startswith("| v2 | 10 | sha256:2 |")
