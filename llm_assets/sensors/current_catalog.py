"""The tenants as the catalog's files say now; read again only when a file changed."""

import os
from functools import lru_cache

from llm_assets.catalog.loading import load_catalog
from llm_assets.catalog.tenants import TenantEntry
from llm_assets.settings import Settings


def current_tenants(settings: Settings) -> dict[str, TenantEntry]:
    """Raises:
    CatalogError: The catalog has mistakes; all of them are in its text.
    """
    return dict(_tenants(settings, _stamp(settings)))


def _stamp(settings: Settings) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and modification times of everything that decides who the tenants are."""
    found = []
    for folder in ("base_models", "models", "tenants"):
        with os.scandir(settings.catalog / folder) as entries:
            found += [(entry.path, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries]
    return tuple(sorted(found))


@lru_cache(maxsize=1)
def _tenants(settings: Settings, _stamp: tuple[tuple[str, int, int], ...]) -> dict[str, TenantEntry]:
    return dict(load_catalog(settings.catalog).tenants)
