"""Which addresses of token issuers are asked: HTTPS, or plain HTTP that never leaves this machine."""

import ipaddress

import httpx

MOST_CHARACTERS = 2048


def address_fault(text: str) -> str | None:
    """What is wrong with an address; None where it may be asked."""
    if len(text) > MOST_CHARACTERS or any(character.isspace() or ord(character) < 32 for character in text):
        return f"longer than {MOST_CHARACTERS} characters, or with spaces"
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as fault:
        return str(fault)
    if url.userinfo:
        return "it holds a user or a password"
    if url.scheme == "https" and url.host:
        return None
    if url.scheme == "http" and _on_this_machine(url.host):
        return None
    return "not https" if url.scheme == "http" else "no address"


def _on_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
