"""What an alias, a deployment or the rule keeps stays, with all that it was made from; the rest may go."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from llm_assets.retention import Decision, Keeping, decide, published_at
from resources.artifact_store.artifacts import Artifact, ArtifactFile, Collection, Line, new_version

NOW = datetime(2026, 11, 21, tzinfo=UTC)
FILES = (ArtifactFile(path="a", size_bytes=1, sha256="0" * 64),)


def line(collection: Collection, tenant: str | None = "team-a") -> Line:
    return Line(collection=collection, tenant=tenant, name="support_bot")


def artifact(collection: Collection, age_days: float, **parents: str) -> Artifact:
    version = new_version(None, at=NOW - timedelta(days=age_days))
    return Artifact(
        line=line(collection, None if collection == "base_models" else "team-a"),
        version=version,
        files=FILES,
        attributes=parents,
    )


def chain(age_days: float, base: Artifact) -> list[Artifact]:
    dataset = artifact("datasets", age_days)
    adapter = artifact("adapters", age_days, base_uri=base.uri, dataset_uri=dataset.uri)
    model = artifact("models", age_days, base_uri=base.uri, adapter_uri=adapter.uri, dataset_uri=dataset.uri)
    return [dataset, adapter, model]


def keeping(versions: int, days: int) -> dict[Line, Keeping]:
    rule = Keeping(versions=versions, days=days)
    lines = [line("base_models", None), line("datasets"), line("adapters"), line("models")]
    return dict.fromkeys(lines, rule)


def going(decisions: tuple[Decision, ...]) -> list[Artifact]:
    return [each.artifact for each in decisions if each.reason is None]


def test_what_is_neither_needed_nor_new_nor_young_goes() -> None:
    base = artifact("base_models", 100)
    old, middle, new = chain(90, base), chain(60, base), chain(1, base)
    decisions = decide([base, *old, *middle, *new], needed={}, keeping=keeping(1, 30), now=NOW)
    assert going(decisions) == [*old, *middle]
    assert going(decide([base, *old, *middle, *new], needed={}, keeping=keeping(2, 30), now=NOW)) == old
    assert going(decide([base, *old, *middle, *new], needed={}, keeping=keeping(1, 70), now=NOW)) == old


def test_a_needed_model_keeps_everything_that_it_was_made_from() -> None:
    base = artifact("base_models", 500)
    newer_bases = [artifact("base_models", 400), artifact("base_models", 300)]
    old, new = chain(90, base), chain(1, newer_bases[-1])
    decisions = decide(
        [base, *newer_bases, *old, *new],
        needed={old[-1].uri: "is previous"},
        keeping=keeping(1, 0),
        now=NOW,
    )
    assert going(decisions) == newer_bases[:1]
    reasons = {each.artifact.uri: each.reason for each in decisions}
    assert reasons[old[-1].uri] == "is previous"
    assert reasons[base.uri] == f"{old[-1].uri} was made from it"


def test_cards_stay_and_keep_nothing_else() -> None:
    base = artifact("base_models", 500)
    old, new = chain(90, base), chain(1, base)
    card = artifact("cards", 90, model_uri=old[-1].uri)
    assert going(decide([base, *old, *new, card], needed={}, keeping=keeping(1, 0), now=NOW)) == old


def test_a_line_that_left_the_catalog_is_left_alone() -> None:
    old = [artifact("models", 900), artifact("models", 800)]
    assert going(decide(old, needed={}, keeping={}, now=NOW)) == []


@given(
    ages=st.lists(st.integers(min_value=0, max_value=400), min_size=1, max_size=6, unique=True),
    needed=st.sets(st.integers(min_value=0, max_value=5)),
    versions=st.integers(min_value=1, max_value=4),
    days=st.integers(min_value=0, max_value=400),
)
def test_nothing_that_stays_loses_what_it_was_made_from(
    ages: list[int], needed: set[int], versions: int, days: int
) -> None:
    base = artifact("base_models", 500)
    chains = [chain(age, base) for age in ages]
    wanted = {chains[at][-1].uri: "is production" for at in needed if at < len(chains)}
    every = [base, *(each for made in chains for each in made)]
    gone = {
        each.uri for each in going(decide(every, needed=wanted, keeping=keeping(versions, days), now=NOW))
    }
    for each in every:
        if each.uri not in gone:
            assert not gone & set(each.attributes.values())
    assert not gone & wanted.keys()


def test_a_label_tells_when_it_was_published() -> None:
    assert published_at(artifact("models", 3)) == NOW - timedelta(days=3)
