"""One HTTP exchange, bounded in time and size, that follows no redirect. Standard library only.

The limit covers the whole exchange, from connecting to the last byte: a socket's own time-out starts
again with every byte, so a server that sends one a second would hold a run for ever.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

_CHUNK = 2**16
_PORTS = {"http": 80, "https": 443}
USER_AGENT = "blip3o-eval"
LOCAL = ("localhost", "127.0.0.1", "::1")


class TransportError(Exception):
    """No whole answer came: refused, reset, cut short, too slow or too large."""


@dataclass(frozen=True)
class Reply:
    """What came back. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """Makes exchanges, from any number of threads; ``abort`` ends those that are under way.

    Args: timeout_s: seconds for one whole exchange. max_bytes: of the body of an answer.
    """

    def __init__(self, timeout_s: float, max_bytes: int) -> None:
        self.timeout_s, self.max_bytes = timeout_s, max_bytes
        self._live: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()

    def exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply:
        """Send one request over a connection of its own. Raises TransportError."""
        until = time.monotonic() + self.timeout_s
        connection, target, extra = _open(urlsplit(url), self.timeout_s)
        watchdog = threading.Timer(self.timeout_s, _hang_up, [connection])
        watchdog.daemon = True
        with self._lock:
            self._live.add(connection)
        watchdog.start()
        try:
            connection.connect()
            if time.monotonic() >= until:  # the watchdog found no socket to close
                raise TimeoutError
            connection.request(
                method, target, body, {"User-Agent": USER_AGENT, **headers, **extra}
            )
            answer = connection.getresponse()
            return Reply(
                answer.status,
                {name.lower(): value for name, value in answer.getheaders()},
                self._read(answer),
            )
        # ValueError and AttributeError: what reading from a socket that was just closed may raise.
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            if time.monotonic() >= until or isinstance(error, TimeoutError):
                raise TransportError(f"no whole answer within {self.timeout_s:g} s") from None
            raise TransportError(_in_words(error)) from None
        finally:
            watchdog.cancel()
            with self._lock:
                self._live.discard(connection)
            connection.close()

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        parts, size = [], 0
        while part := answer.read(_CHUNK):  # raises IncompleteRead when a part of the body is missing
            size += len(part)
            if size > self.max_bytes:
                raise TransportError(f"the answer has more than {self.max_bytes:,} bytes")
            parts.append(part)
        if answer.length:  # read(n) does not raise it in every version
            raise http.client.IncompleteRead(b"", answer.length)
        return b"".join(parts)

    def abort(self) -> None:
        """End every exchange that is under way; each raises TransportError."""
        with self._lock:
            live = list(self._live)
        for connection in live:
            _hang_up(connection)


def reach(url: str, timeout_s: float) -> str | None:
    """Why nothing can be connected to at an address, or None if something can."""
    connection, _, _ = _open(urlsplit(url), timeout_s)
    try:
        connection.connect()
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _in_words(error)
    finally:
        connection.close()
    return None


def _open(
    url: SplitResult, timeout_s: float
) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    """A connection (through the proxy of the environment, if any), the target, and further headers."""
    host, port = url.hostname or "", url.port or _PORTS[url.scheme]
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    proxy = urllib.request.getproxies().get(url.scheme)
    if not proxy or host in LOCAL or urllib.request.proxy_bypass(host):
        if url.scheme == "https":
            return _secure(host, port, timeout_s), target, {}
        return http.client.HTTPConnection(host, port, timeout=timeout_s), target, {}
    way = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    headers = _proxy_authorization(way)
    via = way.hostname or "", way.port or 80
    if url.scheme == "http":
        plain = http.client.HTTPConnection(*via, timeout=timeout_s)
        return plain, f"http://{url.netloc}{target}", headers
    tunnel = _secure(*via, timeout_s)
    tunnel.set_tunnel(host, port, headers)
    return tunnel, target, {}


def _secure(host: str, port: int, timeout_s: float) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection(
        host, port, timeout=timeout_s, context=ssl.create_default_context()
    )


def _proxy_authorization(way: SplitResult) -> dict[str, str]:
    if not way.username:
        return {}
    import base64
    from urllib.parse import unquote

    pair = f"{unquote(way.username)}:{unquote(way.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _hang_up(connection: http.client.HTTPConnection) -> None:
    """Wake whoever reads from the connection, from another thread."""
    sock = connection.sock
    if sock is None:
        return
    try:
        # Of the base class: SSLSocket.shutdown would take the TLS state from under the reader.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:  # closed already
        pass


def _in_words(error: BaseException) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "the answer was cut short"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:160]
