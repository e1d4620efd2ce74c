"""Web pages of other systems (MLflow, the Dagster UI) that answer nobody without a token."""
