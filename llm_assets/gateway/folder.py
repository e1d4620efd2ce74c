"""Where the gateway of an installation keeps what it follows."""

from pathlib import Path

from llm_assets.settings import Settings
from resources.gateway.api_keys import KEYS_FILE
from resources.gateway.journals import Journal

TENANTS_FILE = "tenants.jsonl"


def gateway_folder(settings: Settings) -> Path:
    return settings.home / "gateway"


def keys_journal(settings: Settings) -> Journal:
    return Journal(gateway_folder(settings) / KEYS_FILE)


def tenants_journal(settings: Settings) -> Journal:
    return Journal(gateway_folder(settings) / TENANTS_FILE)


def jwt_filter_file(settings: Settings) -> Path:
    """What Envoy checks JSON Web Tokens by; it follows the file."""
    return gateway_folder(settings) / "xds" / "jwt.json"
