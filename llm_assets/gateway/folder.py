"""Where the gateway of an installation keeps what it follows."""

from pathlib import Path

from llm_assets.installation.settings import Settings
from resources.gateway.api_keys import KEYS_FILE
from resources.gateway.journals import Journal

TENANTS_FILE = "tenants.jsonl"


def keys_journal(settings: Settings) -> Journal:
    return Journal(settings.gateway / KEYS_FILE)


def tenants_journal(settings: Settings) -> Journal:
    return Journal(settings.gateway / TENANTS_FILE)


def jwt_filter_file(settings: Settings) -> Path:
    """What Envoy checks JSON Web Tokens by; it follows the file."""
    return settings.gateway / "xds" / "jwt.json"
