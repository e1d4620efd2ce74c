"""Verified artifacts on the node's own disk: a cache of a store elsewhere, views of a store that is here."""

from resources.node_cache.cache import NodeCache
from resources.node_cache.files import Download
from resources.node_cache.held import Held
from resources.node_cache.survey import Cached
from resources.node_cache.views import Views

__all__ = ["Cached", "Download", "Held", "NodeCache", "Views"]
