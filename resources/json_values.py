"""What is written as JSON for another program, whose schema is that program's: Envoy, Dagster, MLflow."""

from typing import Any

Json = dict[str, Any]
