"""What each tenant used of each model and version in a day, and what it costs, from sealed audit records.

A day is one of UTC, and a request belongs to the day in which it was asked. Tokens are those that vLLM
reported; an answer that was cut off before it said how many counts as a request with none. Refused requests
reached no version and are no usage. A day's table is a Parquet file in the artifact store,
`usage/<day>.parquet`; the prices are the catalog's when it was written, so a later price changes no day that
is over.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from llm_assets.catalog.models import ModelEntry, Price
from resources.object_stores.objects import ObjectMissing, ObjectStore

if TYPE_CHECKING:
    import pyarrow

MILLION = 1_000_000
COUNTED_AT = b"counted_at"  # in a table's own metadata: not every store says when an object was written
SETTLED_S = 3 * 3600
"""How long after its end a day is counted again: a long answer may end, and be sealed, after midnight."""
CENT_MILLIONTHS = Decimal("0.000001")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What counts of one request that a version was asked. `failed`: it had no whole answer."""

    tenant: str
    model: str
    version: str
    failed: bool
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One tenant's use of one version in a day. `cost` is None where the model has no price."""

    day: date
    tenant: str
    model: str
    version: str
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    currency: str | None
    cost: Decimal | None


def usage_of(day: date, asked: Iterable[Asked], models: Mapping[str, ModelEntry]) -> list[Usage]:
    """The day's rows, by tenant, model and version."""
    sums: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for each in asked:
        found = sums[each.tenant, each.model, each.version]
        for index, more in enumerate((1, each.failed, each.prompt_tokens, each.completion_tokens)):
            found[index] += more
    return [_row(day, who, counted, models) for who, counted in sorted(sums.items())]


def _row(day: date, who: tuple[str, str, str], counted: list[int], models: Mapping[str, ModelEntry]) -> Usage:
    tenant, model, version = who
    requests, failed, prompt, completion = counted
    price = models[model].price if model in models else None
    return Usage(
        day=day,
        tenant=tenant,
        model=model,
        version=version,
        requests=requests,
        failed=failed,
        prompt_tokens=prompt,
        completion_tokens=completion,
        currency=price.currency if price else None,
        cost=cost_of(price, prompt, completion) if price else None,
    )


def cost_of(price: Price, prompt_tokens: int, completion_tokens: int) -> Decimal:
    """In `price.currency`, to a millionth."""
    prompt = Decimal(str(price.prompt_per_million)) * prompt_tokens
    completion = Decimal(str(price.completion_per_million)) * completion_tokens
    return ((prompt + completion) / MILLION).quantize(CENT_MILLIONTHS)


def bounds_of(day: date) -> tuple[float, float]:
    """From when on, and before when, a request belongs to the day; epoch seconds."""
    start = datetime.combine(day, time(), tzinfo=UTC)
    return start.timestamp(), (start + timedelta(days=1)).timestamp()


@dataclass(frozen=True, kw_only=True)
class UsageTables:
    """The tables of the days in the artifact store, each replaced as a whole."""

    objects: ObjectStore

    def uri(self, day: date) -> str:
        return f"{self.objects.url}/{_key(day)}"

    def write(self, day: date, rows: list[Usage], *, counted_at: datetime) -> str:
        """Gives the SHA-256 (hex) of what was written."""
        import pyarrow.parquet

        table = _as_table(rows).replace_schema_metadata({COUNTED_AT: counted_at.isoformat()})
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "table.parquet")
            pyarrow.parquet.write_table(table, file)
            return self.objects.upload(file, _key(day), lambda _: None).sha256

    def read(self, day: date) -> list[Usage] | None:
        """The rows of a day; None where its table was never written."""
        table = self._table(day)
        return None if table is None else [Usage(**row) for row in table.to_pylist()]

    def counted_at(self, day: date) -> datetime | None:
        """When a day's table was written; None where it never was."""
        table = self._table(day)
        return None if table is None else datetime.fromisoformat(table.schema.metadata[COUNTED_AT].decode())

    def _table(self, day: date) -> "pyarrow.Table | None":
        import pyarrow.parquet

        try:
            content = self.objects.read(_key(day))
        except ObjectMissing:
            return None
        return pyarrow.parquet.read_table(pyarrow.BufferReader(content))


def _key(day: date) -> str:
    return f"usage/{day.isoformat()}.parquet"


def _as_table(rows: list[Usage]) -> "pyarrow.Table":
    import pyarrow

    number, text = pyarrow.int64(), pyarrow.string()
    types = {"day": pyarrow.date32(), "cost": pyarrow.decimal128(24, 6)}
    types |= dict.fromkeys(("requests", "failed", "prompt_tokens", "completion_tokens"), number)
    schema = pyarrow.schema([(field.name, types.get(field.name, text)) for field in fields(Usage)])
    return pyarrow.Table.from_pylist([asdict(row) for row in rows], schema=schema)


def totals(rows: Iterable[Usage]) -> Iterator[tuple[str, Decimal]]:
    """What all rows cost together, by currency."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        if row.currency is not None and row.cost is not None:
            sums[row.currency] += row.cost
    yield from sorted(sums.items())
