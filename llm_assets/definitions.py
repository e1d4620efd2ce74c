"""The code location that `workspace.yaml` names: the graph of the installation's catalog."""

import gc

from llm_assets.catalog.loading import load_catalog
from llm_assets.graph import build_definitions
from llm_assets.installation.settings import find_settings
from resources.private_files import keep_private

keep_private()  # for the steps, wherever Dagster runs them

_settings = find_settings()

# What is made here stays: looking for garbage in it would only take time, now and at every later look.
gc.disable()
try:
    defs = build_definitions(_settings, load_catalog(_settings.catalog))
    gc.freeze()
finally:
    gc.enable()
