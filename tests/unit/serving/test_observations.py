"""What the Dagster UI is told of a deployment."""

from llm_assets.sensors.deployments import observation
from resources.serving.routes import BackendState, DeploymentState

LIVE = BackendState(
    version="v1", digest="sha256:1", weight=90, status="live", address="http://127.0.0.1:8001", since=1.0
)
DEAD = BackendState(
    version="v2",
    digest="sha256:2",
    weight=10,
    status="dead",
    address=None,
    since=1.0,
    why="v2 died: no room.",
)
DEGRADED = DeploymentState(
    tenant="team-a",
    model="support_bot",
    status="degraded",
    version="v1",
    digest="sha256:1",
    address=LIVE.address,
    since=1.0,
    why=DEAD.why,
    backends=(LIVE, DEAD),
)


def test_an_observation_has_every_version_with_its_weight_digest_and_address() -> None:
    facts = {name: value.value for name, value in observation(DEGRADED).metadata.items()}
    assert facts["llm/state"] == "degraded"
    assert facts["llm/why"] == DEAD.why
    rows = str(facts["llm/backends"]).splitlines()
    assert rows[2] == f"| v1 | 90 | sha256:1 | {LIVE.address} |"
    assert rows[3].startswith("| v2 | 10 | sha256:2 |")
