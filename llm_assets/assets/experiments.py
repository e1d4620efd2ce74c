"""Which of a tenant's experiments a run uses."""

import dagster as dg


class ExperimentConfig(dg.Config):
    """`experiment`: the name of one of the tenant's experiments; by default the one that sorts last."""

    experiment: str | None = None
