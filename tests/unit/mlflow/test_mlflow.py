"""What the registry and its server do without one that runs."""

from pathlib import Path

import pytest

from resources.local.state import LocalState
from resources.mlflow.registry import MlflowRegistry, RegistryError
from resources.mlflow.server import server_environment


def test_an_address_with_a_password_is_refused_and_not_repeated() -> None:
    registry = MlflowRegistry(
        tracking_uri="https://ann:s3cret@mlflow.example.com",
        state=LocalState(folder=Path("unused")),
        promotions="unused",
        signing_keys="unused",
    )
    with pytest.raises(RegistryError, match=r"mlflow\.example\.com.*MLFLOW_TRACKING_PASSWORD") as refused:
        registry.production("team-a", "support_bot")
    assert "s3cret" not in str(refused.value)
    with pytest.raises(RegistryError, match="holds a user or a password"):
        registry.page("team-a", "support_bot")


def test_a_server_inherits_no_credential() -> None:
    inherited = {
        "PATH": "/bin",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow.example.com",
        "MLFLOW_TRACKING_PASSWORD": "s3cret",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "HF_TOKEN": "s3cret",
    }
    environment = server_environment(inherited)
    assert environment["PATH"] == "/bin"
    assert environment["MLFLOW_SERVER_ALLOWED_HOSTS"] == "mlflow.example.com"
    assert "s3cret" not in environment.values()
