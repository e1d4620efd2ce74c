"""The keys that this command line asks with: one a tenant and use, each in a file for its owner alone.

They are keys as any other: `llm-assets keys list` shows them and `llm-assets keys revoke` ends them.
"""

from pathlib import Path

from llm_assets.gateway.folder import keys_journal
from llm_assets.gateway.parts import gateway_of
from llm_assets.installation.settings import Settings
from llm_assets.operator import operator
from resources.durable_files import replace_file
from resources.gateway.api_keys import KEY, create_key, keys
from resources.gateway.client import GatewayClient
from resources.gateway.errors import GatewayError

FOLDER = "own_keys"


def key_file(settings: Settings, tenant: str, name: str) -> Path:
    """Where that key lies. curl reads it with `-H @FILE`: it holds the whole header."""
    return settings.gateway / FOLDER / f"{tenant}.{name}"


def gateway_client(settings: Settings, tenant: str, name: str) -> GatewayClient:
    """Asks at the tenant's address with the key of that use."""
    address = gateway_of(settings).address_of(tenant)
    certificate = settings.gateway_certificate
    return GatewayClient(address=address, key=own_key(settings, tenant, name), certificate=certificate)


def own_key(settings: Settings, tenant: str, name: str) -> str:
    """The key of that use, made where there is none that holds.

    Raises:
        GatewayError: Somebody revoked it.
    """
    file, journal = key_file(settings, tenant, name), keys_journal(settings)
    found = KEY.search(file.read_text()) if file.exists() else None
    if found:
        known = next((key for key in keys(journal, tenant) if key.id == found[1]), None)
        if known and known.revoked is not None:
            raise GatewayError(
                f"The key {known.id} ({name}) of {tenant} was revoked by {known.revoked_by}. "
                f"Delete {file} to have a new one made."
            )
        if known:
            return found[0]
    _, text = create_key(journal, tenant=tenant, name=name, actor=operator(), by="llm-assets")
    replace_file(file, f"Authorization: Bearer {text}\n")
    return text
