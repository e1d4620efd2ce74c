"""Where the files beside the code lie: the gateway's filter, the engines' locks, what a project begins with.

A wheel holds them below `resources/_shipped`; in a checkout they lie where people look for them, at the root.
Only the standard library is used here: the images are built from this code, before anything is installed.
"""

from pathlib import Path

_IN_WHEEL = Path(__file__).with_name("_shipped")
_SHIPPED = _IN_WHEEL if _IN_WHEEL.is_dir() else Path(__file__).resolve().parents[1]

DEMO_CATALOG = _SHIPPED / "catalog"
GATEWAY_FILTER = _SHIPPED / "deployments" / "gateway"
LOCKS = _SHIPPED / "images"
MONITORING = _SHIPPED / "deployments" / "monitoring"
PROJECT = _SHIPPED / "deployments" / "local"
SYSTEMD = _SHIPPED / "deployments" / "systemd"
