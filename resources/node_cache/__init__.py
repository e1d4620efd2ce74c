"""The node's cache: verified artifacts on the node's own disk, shared by all its processes and containers."""

from resources.node_cache.cache import Held, NodeCache
from resources.node_cache.files import Download
from resources.node_cache.survey import Cached

__all__ = ["Cached", "Download", "Held", "NodeCache"]
