"""`<model>/dataset`: a tenant's rows, validated, counted, split, and fixed by one digest."""

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import dagster as dg

from llm_assets.assets.checks import Verdict, artifact_check
from llm_assets.assets.experiments import ExperimentConfig
from llm_assets.assets.parameters import read_once
from llm_assets.assets.turns import step_turn
from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.recipes import Recipe
from llm_assets.datasets.landing_zone import LandingZone, source_files
from llm_assets.datasets.landing_zone import fingerprint as fingerprint_of_landing_zone
from llm_assets.datasets.mistakes import mistake
from llm_assets.datasets.preparation import PreparedDataset, prepare
from llm_assets.folder_stamps import DATASET_STAMP, files_of_dataset, stamp_of
from llm_assets.installation.settings import Settings
from llm_assets.keys import DATASET, base_model_key, model_key
from llm_assets.landing_zones import opened_zone
from llm_assets.lineage import materialized_for
from llm_assets.manifests import DatasetManifest
from llm_assets.partitions import tenants_of
from llm_assets.presentation import artifact_metadata, table
from resources.artifact_store.artifacts import Artifact, Line, fingerprint_of
from resources.artifact_store.store import ArtifactStore
from resources.seams.state import State

PREPARATION = 2  # goes up when the same files give other rows, or are refused
DEFAULT_CUTOFF_LEN = 2048  # LLaMA-Factory's own
TOKENIZER = "tokenizer.json"
MOST_ROWS_CUT_OFF = 0.1
MOST_DUPLICATES = 0.1
SHOWN_REMARKS = 5


def dataset(catalog: Catalog, model: ModelEntry) -> dg.AssetsDefinition:
    """The asset of one model's datasets, a partition a tenant."""

    @dg.asset(
        key=model_key(model.name, DATASET),
        deps=[base_model_key(model.base_model)],
        partitions_def=tenants_of(model.name),
        group_name=model.name,
        kinds={"dataset", "json"},
        owners=[model.owner],
        code_version="1",
        description="What the tenant dropped into its landing zone "
        f"`datasets/<tenant>/{model.name}/`: every row validated, counted with the base model's tokenizer, "
        "a seeded part held out for evaluation.",
    )
    @read_once
    def _dataset(
        context: dg.AssetExecutionContext,
        config: ExperimentConfig,
        artifact_store: ArtifactStore,
        settings: dg.ResourceParam[Settings],
        state: dg.ResourceParam[State],
    ) -> dg.MaterializeResult[None]:
        tenant = context.partition_key
        base = materialized_for(context, artifact_store, base_model_key(model.base_model))
        line = Line(collection="datasets", tenant=tenant, name=model.name)
        with (
            step_turn(context, state, tenant, model.name),
            opened_zone(settings, tenant, model.name) as zone,
        ):
            stamp = stamp_of(files_of_dataset(zone.folder))
            recipe = catalog.recipe_for(tenant, model.name, config.experiment)
            options, rows = _options(recipe, model, base), fingerprint_of_landing_zone(zone)
            fingerprint = fingerprint_of(rows=rows, **asdict(options))
            artifact = artifact_store.find(line, fingerprint)
            if artifact is None:
                output = settings.work / str(line)
                tokenizer = artifact_store.read(base, TOKENIZER)
                prepared = _prepare(zone, output, options, tokenizer)
                _refuse_changed(zone, stamp)
                manifest = _manifest(prepared, fingerprint, options.cutoff_len)
                artifact = artifact_store.publish(line, output, manifest.attributes())
        for remark in DatasetManifest.of(artifact).remarks:
            context.log.warning(str(remark))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artifact.digest),
            metadata=_facts(artifact) | artifact_metadata(artifact) | {DATASET_STAMP: stamp},
        )

    return _dataset


@dataclass(frozen=True, kw_only=True)
class Options:
    """What decides the prepared rows beside the rows themselves. `tokenizer` is its file's SHA-256."""

    preparation: int = PREPARATION
    stage: str
    cutoff_len: int
    train_on_prompt: bool
    held_out_fraction: float
    seed: int
    tokenizer: str


def _options(recipe: Recipe, model: ModelEntry, base: Artifact) -> Options:
    return Options(
        stage=recipe.stage,
        cutoff_len=recipe.number("cutoff_len", DEFAULT_CUTOFF_LEN),
        train_on_prompt=recipe.trains_on_prompt,
        held_out_fraction=model.dataset.held_out_fraction,
        seed=model.dataset.seed,
        tokenizer=base.file(TOKENIZER).sha256,
    )


def _refuse_changed(zone: LandingZone, before: str) -> None:
    """The files that the fingerprint was taken of are those that are there, unchanged."""
    for file in source_files(zone.folder):
        zone.checked(file.path)
    if stamp_of(files_of_dataset(zone.folder)) != before:
        raise mistake(zone.path, "changed while it was read; run again once its files are whole")


def _prepare(zone: LandingZone, output: Path, options: Options, tokenizer: bytes) -> PreparedDataset:
    shutil.rmtree(output, ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        tokenizer_file = Path(place, TOKENIZER)
        tokenizer_file.write_bytes(tokenizer)
        prepared = prepare(
            zone,
            output,
            stage=options.stage,
            tokenizer_file=tokenizer_file,
            cutoff_len=options.cutoff_len,
            held_out_fraction=options.held_out_fraction,
            seed=options.seed,
            train_on_prompt=options.train_on_prompt,
        )
    # Token counts follow the tokenizer; they are known *about* the rows and must not change the digest.
    (output / "statistics.json").unlink()
    return prepared


def _manifest(prepared: PreparedDataset, fingerprint: str, cutoff_len: int) -> DatasetManifest:
    return DatasetManifest(
        fingerprint=fingerprint,
        format=prepared.format,
        rows=prepared.rows,
        train_rows=prepared.train_rows,
        held_out_rows=prepared.held_out_rows,
        statistics=prepared.statistics,
        samples=tuple(prepared.samples),
        remarks=prepared.remarks,
        cutoff_len=cutoff_len,
    )


def _facts(artifact: Artifact) -> dict[str, dg.MetadataValue]:
    facts = DatasetManifest.of(artifact)
    statistics = [
        {"statistic": name, "value": value} for name, value in facts.statistics.model_dump().items()
    ]
    return {
        "dagster/row_count": dg.MetadataValue.int(facts.rows),
        "llm/train_rows": dg.MetadataValue.int(facts.train_rows),
        "llm/held_out_rows": dg.MetadataValue.int(facts.held_out_rows),
        "llm/format": dg.MetadataValue.text(facts.format),
        "llm/statistics": table(statistics),
        "llm/samples": table(facts.samples),
        "llm/remarks": table([remark.as_dict() for remark in facts.remarks]),
    }


def dataset_checks(model: ModelEntry) -> list[dg.AssetChecksDefinition]:
    """What a data scientist wants to know of a dataset before it is trained on."""

    def some_rows_are_held_out(dataset: Artifact) -> Verdict:
        """There are rows that training does not see, so that the held-out loss means something."""
        rows = DatasetManifest.of(dataset).held_out_rows
        wanted = model.dataset.held_out_fraction > 0
        return Verdict(
            holds=rows > 0 or not wanted, why=f"{rows} rows are held out.", figures={"held_out_rows": rows}
        )

    def few_rows_are_cut_off(dataset: Artifact) -> Verdict:
        """At most one row in ten is longer than the recipe's `cutoff_len` and loses its end in training."""
        manifest = DatasetManifest.of(dataset)
        share = manifest.statistics.share_over_cutoff
        why = f"{share:.1%} of the rows are longer than cutoff_len={manifest.cutoff_len} tokens."
        return Verdict(holds=share <= MOST_ROWS_CUT_OFF, why=why, figures={"share_over_cutoff": share})

    def few_rows_are_duplicates(dataset: Artifact) -> Verdict:
        """At most one row in ten says exactly what another row says."""
        manifest = DatasetManifest.of(dataset)
        duplicates, rows = manifest.statistics.duplicates, manifest.rows
        figures = {"duplicates": duplicates, "rows": rows}
        why = f"{duplicates} of {rows} rows are exact duplicates."
        return Verdict(holds=duplicates <= MOST_DUPLICATES * rows, why=why, figures=figures)

    def the_rows_are_learned_as_they_are(dataset: Artifact) -> Verdict:
        """Every file, column, key and text is learned from; no row holds a word that was to be filled in."""
        remarks = DatasetManifest.of(dataset).remarks
        shown = [str(remark) for remark in remarks if remark.kind != "note"]
        more = [f"… and {len(shown) - SHOWN_REMARKS} more"] if len(shown) > SHOWN_REMARKS else []
        why = "; ".join(shown[:SHOWN_REMARKS] + more) or "Everything that is there is learned from."
        return Verdict(holds=not shown, why=why, figures={"remarks": len(shown)})

    return [
        artifact_check(model, DATASET, the_rows_are_learned_as_they_are, blocking=False),
        artifact_check(model, DATASET, some_rows_are_held_out, blocking=True),
        artifact_check(model, DATASET, few_rows_are_cut_off, blocking=False),
        artifact_check(model, DATASET, few_rows_are_duplicates, blocking=False),
    ]
