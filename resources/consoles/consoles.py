"""One console: where its pages are, and the tokens that open it.

There are two tokens, 256 random bits each, in files that only their owner can read. Whoever has the `full`
one may do all that the pages offer, whoever has the `read-only` one may look. A token travels in a link once,
in a header (`Authorization: Bearer`), or, derived, in a cookie; never in an argument, a log or metadata.
"""

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from resources.private_files import secret_in

Access = Literal["full", "read-only"]


@dataclass(frozen=True, kw_only=True)
class Console:
    """Pages at `http://127.0.0.1:<port>`, which only this machine reaches.

    Attributes:
        name: As in the names of its files: `mlflow`.
        title: As people call it.
        folder: Where its socket and the configuration of the Envoy before it lie.
        tokens: The folder of the tokens of all consoles.
    """

    name: str
    title: str
    port: int
    folder: Path
    tokens: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self, access: Access) -> str:
        """Its token, made where there is none. To renew it, delete the file and start the console again."""
        return secret_in(self.token_file(access))

    def token_file(self, access: Access) -> Path:
        return self.tokens / f"{self.name}.{access}"

    def link(self, access: Access, page: str = "/") -> str:
        """An address that opens the page in a browser that does not know the token yet."""
        path, hash_sign, fragment = page.partition("#")
        separator = "&" if "?" in path else "?"
        return f"{self.url}{path}{separator}token={self.token(access)}{hash_sign}{fragment}"

    def headers(self, access: Access = "full") -> dict[str, str]:
        """What a program sends."""
        return {"Authorization": f"Bearer {self.token(access)}"}

    @property
    def cookie(self) -> str:
        """Its cookie's name; browsers send the cookies of one host to all its ports."""
        return f"llm_assets_{self.name}_{self.port}"


def cookie_value(token: str) -> str:
    """What the browser keeps instead of the token: it opens the same console, and not as a token."""
    return hmac.new(token.encode(), b"cookie", hashlib.sha256).hexdigest()
