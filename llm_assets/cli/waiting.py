"""What waits for a person, as commands say it: candidates to be promoted, changed recipes to be trained."""

from collections.abc import Iterable

from rich.console import Console

from llm_assets.assets.deployments import says_waiting
from llm_assets.cli.installation import Installation
from llm_assets.installation.profiles import profile_of
from llm_assets.installation.settings import Settings
from llm_assets.outdated_recipes import outdated_recipes
from llm_assets.runs import dagster_instance
from resources.mlflow.registry import RegisteredVersion


def waiting_candidates(settings: Settings) -> tuple[RegisteredVersion, ...] | None:
    """Of all tenants and models; None where MLflow does not run, which is not started for this."""
    profile = profile_of(settings)
    return profile.registry.all_waiting() if profile.mlflow.ready() else None


def print_waiting(console: Console, candidates: Iterable[RegisteredVersion] | None) -> None:
    """A line for each."""
    if candidates is None:
        text = "Candidates that wait are not shown: MLflow is not running; `llm-assets up` starts it."
        console.print(text, style="dim", highlight=False, soft_wrap=True)
        return
    for each in candidates:
        text = f"{each.tenant}/{each.model}: {says_waiting(each)}"
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)


def print_outdated(console: Console, here: Installation) -> None:
    """A line for each model whose recipe changed since its tenants were trained."""
    if not here.settings.dagster_home.is_dir():
        return  # nothing was ever run
    with dagster_instance(here.settings) as instance:
        for each in outdated_recipes(instance, here.catalog):
            console.print(f"{each}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def print_differences(console: Console, settings: Settings) -> None:
    """A line for each thing that MLflow says otherwise than the signed log of promotions; while it runs."""
    profile = profile_of(settings)
    if not profile.mlflow.ready():
        return
    remedy = "`llm-assets history MODEL --tenant TENANT --restore` writes MLflow anew."
    for each in profile.registry.all_differences():
        text = f"{each}. The log counts; {remedy}"
        console.print(text, style="red", highlight=False, markup=False, soft_wrap=True)
