"""What a run may be told about a training: which experiment, and whether to train again."""

import dagster as dg


class ExperimentConfig(dg.Config):
    """`experiment`: the name of one of the tenant's experiments; by default the one that sorts last."""

    experiment: str | None = None


class TrainingConfig(ExperimentConfig):
    """`retrain`: train again what another engine than the installed one has trained."""

    retrain: bool = False
