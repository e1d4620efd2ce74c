"""How much may be asked through the gateway: by one key, and by one tenant with all its keys."""

from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Limits:
    """None is no limit."""

    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value < 1:
                raise ValueError(f"{field.name} {value} is no limit; a number from 1 is, or none at all")

    def as_json(self) -> dict[str, int | None] | None:
        """As journals have it."""
        return asdict(self) if any(asdict(self).values()) else None
