"""`llm-assets run`: one tenant's chain, from its dataset to a live deployment, with its progress."""

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

from llm_assets.cancellation import RunCanceled
from llm_assets.catalog.mistakes import CatalogError
from llm_assets.cli.display import Display
from llm_assets.cli.installation import Installation, installation
from llm_assets.cli.interruption import Interrupted
from llm_assets.cli.options import MISUSED, Model, UsageError, tenant_names
from llm_assets.cli.output import output
from llm_assets.cli.progress import followed
from llm_assets.cli.terminal import Screen, output_into
from llm_assets.cli.waiting import print_waiting
from llm_assets.gateway.parts import GatewayParts
from llm_assets.graph import build_chain
from llm_assets.keys import DATASET, LORA_ADAPTER, model_key
from llm_assets.partitions import tenants_using
from llm_assets.parts import RUN_LOG
from llm_assets.runs import dagster_instance, execute_chain, new_run_id
from resources.mlflow.client import warm

Experiment = Annotated[
    str | None,
    typer.Option("--experiment", "-e", help="One of the tenant's experiments; the last by name otherwise."),
]

OneTenant = Annotated[
    str | None,
    typer.Option("--tenant", "-t", help="A tenant that uses the model.", autocompletion=tenant_names),
]
AllTenants = Annotated[
    bool, typer.Option("--all-tenants", help="Every tenant that uses the model, one after the other.")
]

Retrain = Annotated[
    bool, typer.Option("--retrain", help="Train again what another engine than the installed one trained.")
]


def run(
    model: Model,
    tenant: OneTenant = None,
    experiment: Experiment = None,
    all_tenants: AllTenants = False,
    retrain: Retrain = False,
) -> None:
    """Takes a tenant's dataset to a live model; what has not changed is reused.

    Runs the same graph as the Dagster UI and is recorded there. Killed at any moment, the same
    command goes on where it stopped. With --all-tenants all that use the model come one after the other; one
    that fails keeps no other from its turn.

    Example: `llm-assets run support_bot --tenant team-a`
    """
    here = installation()
    tenants = _chosen(here, model, tenant, experiment, all_tenants=all_tenants)
    gateway = GatewayParts(profile=here.profile)
    served = here.catalog.models[model].serving.mode != "none"
    here.profile.mlflow.start()  # the chain needs both late: they start beside the training
    if served:
        gateway.start_where_none_runs()
    chosen = {"experiment": experiment}
    warm()
    if served:
        gateway.wait_ready()
    op_config = {
        f"{model}__{DATASET}": {"config": chosen},
        f"{model}__{LORA_ADAPTER}": {"config": chosen | {"retrain": retrain}},
    }
    failed = [each for each in tenants if not execute(here, model, each, op_config=op_config)]
    if not here.catalog.models[model].is_reward_model:  # of which nothing is registered
        registry = here.profile.registry
        done = [each for each in tenants if each not in failed]
        waiting = [candidate for each in done if (candidate := registry.waiting(each, model))]
        print_waiting(output(), waiting)
    if failed:
        if all_tenants:
            output().print(f"Failed: {', '.join(failed)} of {len(tenants)}.", style="red", highlight=False)
        raise typer.Exit(1)


def _chosen(
    here: Installation, model: str, tenant: str | None, experiment: str | None, *, all_tenants: bool
) -> list[str]:
    """Whose chain is to run.

    Raises:
        UsageError: Neither a tenant nor all of them were named, or both; or nobody uses the model.
    """
    if (tenant is None) != all_tenants:
        raise UsageError("Name a tenant with --tenant, or give --all-tenants; not both.")
    if tenant is not None:
        here.check_names(model, tenant)
        if experiment is not None:
            here.catalog.recipe_for(tenant, model, experiment)
        return [tenant]
    if experiment is not None:
        raise UsageError("An experiment belongs to one tenant: name it with --tenant.")
    here.check_model(model)
    if not (tenants := tenants_using(here.catalog, model)):
        raise UsageError(f"No tenant uses {model}. Add it to `models` in a file of catalog/tenants/.")
    return tenants


def execute(
    here: Installation,
    model: str,
    tenant: str,
    *,
    op_config: dict[str, Any],
    only: str | None = None,
    display: Display | None = None,
    starts: Mapping[str, Callable[[], None]] | None = None,
) -> bool:
    """Executes the chain (or `only` one of its assets) under a live display; says whether it succeeded.

    `starts`: what is to be done when a step begins, by the step as it is shown.
    """
    display = display or Display(Screen())
    console = display.console
    started = time.monotonic()
    job = build_chain(here.settings, here.catalog, here.catalog.models[model])
    run_id = new_run_id()
    console.print(f"[bold]{model}[/] of [bold]{tenant}[/]  [dim]run {run_id}[/]")
    with (
        dagster_instance(here.settings) as instance,
        followed(instance, run_id, display, starts or {}),
        output_into(here.settings.dagster_home / "storage" / run_id / RUN_LOG),
    ):
        try:
            result = execute_chain(
                instance,
                here.profile.state,
                job,
                model=model,
                tenant=tenant,
                tenants=tenants_using(here.catalog, model),
                run_id=run_id,
                op_config=op_config,
                assets=[model_key(model, only)] if only else None,
            )
        except RunCanceled as fault:
            raise Interrupted(f"{fault} The same command goes on where it stopped.") from fault
    _conclude(console, result, time.monotonic() - started)
    return bool(result.success)


def _conclude(console: Console, result: Any, seconds: float) -> None:
    if result.success:
        console.print(f"[bold green]Done[/] in {seconds:.0f} s.")
        return
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error:
            cause = event.step_failure_data.error.cause or event.step_failure_data.error
            console.print(f"[bold red]{event.step_key.replace('__', '/')} failed.[/]")
            console.print(_without_class(cause), style="red", markup=False, soft_wrap=True)
            if cause.cls_name == CatalogError.__name__:
                raise typer.Exit(MISUSED)


def _without_class(error: Any) -> str:
    """Dagster puts the class before the message; for people the message is enough."""
    _, _, message = error.message.strip().partition(": ")
    return message if error.cls_name and error.cls_name.endswith("Error") else error.message.strip()
