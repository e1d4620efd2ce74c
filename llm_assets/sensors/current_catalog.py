"""The catalog as its files say now; read again only when a file changed."""

import logging
from functools import lru_cache

from llm_assets.catalog.loading import Catalog, load_catalog
from llm_assets.catalog.stamps import Stamp, stamp_of
from llm_assets.catalog.tenants import TenantEntry
from llm_assets.installation.settings import Settings

log = logging.getLogger(__name__)


def current_catalog(settings: Settings) -> Catalog:
    """Raises:
    CatalogError: The catalog has mistakes; all of them are in its text.
    GitError: It lies in Git and could never be fetched.
    """
    if fault := settings.follow_catalog():
        log.warning(fault)
    return _catalog(settings, stamp_of(settings.catalog))


def current_tenants(settings: Settings) -> dict[str, TenantEntry]:
    """As `current_catalog`."""
    return dict(current_catalog(settings).tenants)


@lru_cache(maxsize=1)
def _catalog(settings: Settings, _stamp: Stamp) -> Catalog:
    return load_catalog(settings.catalog)
