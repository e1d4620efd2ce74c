"""The code location that `workspace.yaml` names: the graph of the installation's catalog."""

from llm_assets.catalog.loading import load_catalog
from llm_assets.graph import build_definitions
from llm_assets.settings import find_settings
from resources.private_files import keep_private

keep_private()  # for the steps, wherever Dagster runs them

_settings = find_settings()

defs = build_definitions(_settings, load_catalog(_settings.catalog))
