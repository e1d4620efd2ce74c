"""Connections of urllib3 that are kept and used again, with TLS, the environment's proxies and redirects.

Nothing here retries, and no error or log line at INFO or above shows an address beyond its host: a redirect's
address may be signed.
"""

import threading
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connectionpool import HTTPConnectionPool

from resources.object_stores.retries import Retries

REDIRECTED = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5


class Connections:
    """For all threads of one store; each origin (`https://host:port`) has a pool of its own."""

    def __init__(self, retries: Retries, *, kept: int) -> None:
        """Args:
        kept: How many connections to one origin stay open between requests.
        """
        self._timeout = urllib3.Timeout(connect=retries.connect_s, read=retries.silence_s)
        self._silence_s, self._kept = retries.silence_s, kept
        self._pools: dict[str, HTTPConnectionPool] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        for pool in list(self._pools.values()):
            pool.close()

    def ask(
        self,
        method: str,
        address: str,
        *,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
        whole: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        """Sends one request; a GET goes where it is redirected to.

        Args:
            whole: Reads the body too; else it is to be read, and the answer closed, by the caller.

        Raises:
            urllib3.exceptions.HTTPError: The request could not be sent or was not answered.
        """
        for _ in range(MOST_REDIRECTS):
            answer = self._send(method, address, headers, body, whole)
            elsewhere = answer.headers.get("Location") if answer.status in REDIRECTED else None
            if method != "GET" or elsewhere is None:
                return answer
            answer.drain_conn()
            answer.release_conn()
            there = urljoin(address, elsewhere)
            if _origin(urlsplit(there)) != _origin(urlsplit(address)):
                headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
            address = there
        raise urllib3.exceptions.HTTPError(f"redirected {MOST_REDIRECTS} times, and no answer")

    def _send(
        self,
        method: str,
        address: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
        whole: bool,
    ) -> urllib3.BaseHTTPResponse:
        url = urlsplit(address)
        pool = self._pools.get(_origin(url)) or self._new_pool(url)
        target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        through_proxy = pool.proxy is not None and url.scheme == "http"
        return pool.urlopen(
            method,
            f"{_origin(url)}{target}" if through_proxy else target,
            body=body,
            headers=headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=self._timeout,
            preload_content=whole,
        )

    def _new_pool(self, url: SplitResult) -> HTTPConnectionPool:
        with self._lock:
            origin = _origin(url)
            if origin not in self._pools:
                pool = _manager(url, maxsize=self._kept).connection_from_url(origin)
                pool.ConnectionCls = _patient(pool.ConnectionCls, self._silence_s)
                self._pools[origin] = pool
            return self._pools[origin]


def _origin(url: SplitResult) -> str:
    return f"{url.scheme}://{url.netloc}"


def _manager(url: SplitResult, **options: Any) -> urllib3.PoolManager:
    """What connects to the host of `url`: directly, or through the proxy that the environment names."""
    if url.scheme == "https":
        import httpx  # which trusts SSL_CERT_FILE, SSL_CERT_DIR or certifi, as all of this platform does

        options["ssl_context"] = httpx.create_ssl_context()
    proxies = {} if proxy_bypass(url.netloc) else getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy:
        return urllib3.PoolManager(**options)
    auth = urllib3.util.parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=unquote(auth)) if auth else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)


def _patient(connection: Any, silence_s: float) -> Any:
    """urllib3 gives what is sent the connect timeout; a server that stores what it gets may take longer."""

    class Connection(connection):
        def send(self, data: Any) -> None:
            if self.sock is not None:
                self.sock.settimeout(silence_s)
            super().send(data)

    return Connection
