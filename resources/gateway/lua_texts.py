"""Texts as Lua reads them."""


def lua_text(text: str) -> str:
    """A Lua string literal. Decimal escapes are the ones that every Lua has."""
    plain = (
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03d}" for byte in text.encode()
    )
    return f'"{"".join(plain)}"'
