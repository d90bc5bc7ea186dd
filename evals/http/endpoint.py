"""An OpenAI-compatible endpoint: its address and key, and requests that survive its bad moments.

What passes by itself is tried again (no connection, 408, 409, 425, 429, 5xx, an answer that is cut short or
no JSON), with growing, jittered waits or for as long as ``Retry-After`` says. What concerns one request
is a `RequestError` of that request. What concerns all of them (key, quota, address, an outage) is an
`EndpointError`, which ends the run with everything so far kept.
"""

from __future__ import annotations

import email.utils
import json
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from evals.errors import EvalError, MissingRequirementError, UsageError, shown
from evals.http.transport import LOCAL, Reply, Transport, TransportError, reach
from evals.io.redact import MARK, redact

NO_KEY = "none"  # in place of the name of a variable
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
_OUTAGE_AFTER = 16  # requests in a row that were given up, none answered between them
_REACH_WITHIN_S = 5.0


class EndpointError(EvalError):
    """An endpoint that refuses every request: key, quota, address, outage."""


class RequestError(Exception):
    """One request that an endpoint refused, or that was given up. ``code`` is the endpoint's own word."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class StoppedError(RequestError):
    """The run ended while this request waited."""


class _PassingError(Exception):
    def __init__(self, message: str, wait_s: float | None = None, was_served: bool = False) -> None:
        super().__init__(message)
        self.wait_s, self.was_served = wait_s, was_served


@dataclass(frozen=True)
class Limits:
    """How patient and how fast. Seconds; ``requests_per_minute`` 0 means no limit."""

    timeout_s: float = 180.0
    max_retries: int = 5
    max_wait_s: float = 120.0
    requests_per_minute: float = 0.0
    max_bytes: int = 128 * 2**20
    backoff_s: float = 1.0


def check_base_url(url: str) -> str:
    """The address without a slash at its end. Raises UsageError."""
    allowed = "give http(s)://HOST[:PORT]/PATH, such as http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(url)
        port_is_sound = parts.port is None or parts.port > 0
    except ValueError:
        raise UsageError(f"base_url {shown(redact(url))} is no address: {allowed}") from None
    is_clean = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_sound or not is_clean:
        raise UsageError(f"base_url {shown(redact(url))} is no address: {allowed}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            f"base_url {shown(redact(url))} carries a user, a query or a fragment: keys come from the "
            f"environment only; {allowed}"
        )
    return url.rstrip("/")


def read_key(variable: str) -> str | None:
    """The key that an environment variable holds; None for the name "none".

    Raises: MissingRequirementError when it is not set, UsageError when it cannot be a header's value.
    """
    if variable == NO_KEY:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise MissingRequirementError(
            f"no key: set the environment variable {variable}, name another with "
            f"model.args.key_variable=NAME, or model.args.key_variable={NO_KEY} for a server that asks for none"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(
            f"the key in the environment variable {variable} holds characters that no key has"
        )
    return key


class Endpoint:
    """POST of JSON to an endpoint, from any number of threads.

    ``retries`` counts requests that were sent again, ``unanswered`` attempts that may have been worked on and
    charged all the same: they were sent, and no whole answer came.
    """

    def __init__(self, base_url: str, key: str | None, limits: Limits = Limits()) -> None:
        self.base_url = check_base_url(base_url)
        self.limits = limits
        self._key = key
        self._transport = Transport(limits.timeout_s, limits.max_bytes)
        self._pace = _Pace(limits.requests_per_minute)
        self._random = random.Random()  # of waits only; no output depends on it
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self.retries = self.unanswered = 0

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).netloc

    @property
    def sends_key_in_clear(self) -> bool:
        """Whether the key travels unencrypted to another machine."""
        parts = urlsplit(self.base_url)
        return self._key is not None and parts.scheme == "http" and parts.hostname not in LOCAL

    def check_reachable(self) -> None:
        """Raises MissingRequirementError when nothing answers at the address."""
        problem = reach(self.base_url, _REACH_WITHIN_S)
        if problem is not None:
            raise MissingRequirementError(
                f"endpoint {self.base_url} does not answer ({problem}): start it, or give another with "
                "model.args.base_url or OPENAI_BASE_URL"
            )

    def post_json(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that answers a request. Raises RequestError or EndpointError."""
        data = json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        url = f"{self.base_url}/{path.lstrip('/')}"
        return self._persist(lambda: self._read_json(self._transport.exchange("POST", url, headers, data)))

    def get_bytes(self, url: str) -> bytes:
        """What lies at an address that an answer named; the key is not sent along."""
        self._check_place(url)
        return self._persist(
            lambda: self._read_bytes(self._transport.exchange("GET", url, {})), is_paced=False
        )

    def stop(self, hang_up: bool = True) -> None:
        """No request starts or waits any longer; ``hang_up`` also ends those that are under way."""
        self._pace.stop()
        if hang_up:
            self._transport.abort()

    # -- trying again -------------------------------------------------------------------------

    def _persist(self, attempt: Callable[[], Any], is_paced: bool = True) -> Any:
        number = 0
        while True:
            if is_paced:
                self._pace.wait()
            try:
                value = attempt()
            except _PassingError as error:
                problem, wait_s = str(error), error.wait_s
                with self._lock:
                    self.unanswered += error.was_served
            except TransportError as error:
                problem, wait_s = str(error), None
                with self._lock:
                    self.unanswered += 1
            else:
                with self._lock:
                    self._failed_in_a_row = 0
                return value
            if self._pace.is_stopped:
                raise StoppedError("the run ended before an answer came")
            number += 1
            if number > self.limits.max_retries:
                self._give_up(problem, number)
            self._hold_back(number, wait_s, problem)
            with self._lock:
                self.retries += 1

    def _hold_back(self, number: int, wait_s: float | None, problem: str) -> None:
        if wait_s is None:
            most = min(self.limits.max_wait_s, self.limits.backoff_s * 2 ** (number - 1))
            self._pace.sleep(most * self._random.uniform(0.5, 1.0))
            return
        if wait_s > self.limits.max_wait_s:
            raise EndpointError(
                f"endpoint {self.host} asks to wait {wait_s:,.0f} s ({problem}), at most "
                f"{self.limits.max_wait_s:,.0f} s are waited: run the same command again later; what was made is kept"
            )
        self._pace.hold(wait_s * self._random.uniform(1.0, 1.1))

    def _give_up(self, problem: str, attempts: int) -> None:
        with self._lock:
            self._failed_in_a_row += 1
            is_outage = self._failed_in_a_row >= _OUTAGE_AFTER
        times = f"{attempts} attempt{'s' * (attempts > 1)}"
        if is_outage:
            raise EndpointError(
                f"endpoint {self.host} has answered none of the last {_OUTAGE_AFTER} requests ({problem}, "
                f"{times} each): when it is back, run the same command again, with --retry-errors"
            )
        raise RequestError(f"{problem}; given up after {times}")

    # -- reading answers ----------------------------------------------------------------------

    def _read_json(self, reply: Reply) -> dict[str, Any]:
        self._check_status(reply)
        try:
            value = json.loads(reply.body)
        except (ValueError, RecursionError):
            raise _PassingError("the answer is no JSON", was_served=True) from None
        if not isinstance(value, dict):
            raise _PassingError("the answer is no JSON object", was_served=True)
        return value

    def _read_bytes(self, reply: Reply) -> bytes:
        if reply.status == 200:
            return reply.body
        if reply.status in _PASSING:
            raise _PassingError(f"status {reply.status}", _retry_after(reply))
        raise RequestError(f"the address in the answer gave status {reply.status}")

    def _check_status(self, reply: Reply) -> None:
        status = reply.status
        if 200 <= status < 300:
            return
        code, message = self._explanation(reply)
        said = f"status {status}" + (f": {message}" if message else "")
        if 300 <= status < 400:
            target = redact(reply.headers.get("location", "nowhere"))
            raise EndpointError(
                f"endpoint {self.host} redirects to {shown(target)}, and neither key nor prompts are sent on: "
                "give the right address with model.args.base_url"
            )
        if status in (401, 403) and not _is_about_content(code, message):
            raise EndpointError(f"endpoint {self.host} refuses the key ({said})")
        if code in ("insufficient_quota", "billing_hard_limit_reached") or status == 402:
            raise EndpointError(
                f"endpoint {self.host}: the quota is used up ({said}); run the same command again when there is more"
            )
        if status in (404, 405):
            raise EndpointError(f"endpoint {self.base_url} does not know this request ({said})")
        if status in _PASSING:
            raise _PassingError(said, _retry_after(reply))
        raise RequestError(said, code)

    def _explanation(self, reply: Reply) -> tuple[str, str]:
        """The endpoint's code and message, one short line without the key."""
        try:
            error = json.loads(reply.body)["error"]
        except (ValueError, RecursionError, KeyError, TypeError):
            return "", ""
        if not isinstance(error, dict):
            error = {"message": error}
        code = error.get("code") or error.get("type") or ""
        return str(code)[:80], self.clean(str(error.get("message") or ""))

    def clean(self, text: str) -> str:
        """Text of the endpoint as a message shows it."""
        text = "".join(c if c.isprintable() else " " for c in self.without_key(text)[:2000])
        return redact(" ".join(text.split()))[:200]

    def without_key(self, text: str) -> str:
        """Text of the endpoint as it is, but for the key."""
        return text.replace(self._key, MARK) if self._key else text

    def _check_place(self, url: str) -> None:
        """Only pictures on the web, or on the endpoint's own host; never this machine's own services."""
        try:
            parts, own = urlsplit(url), urlsplit(self.base_url)
            host = parts.hostname or ""
            is_own = (host, parts.port) == (own.hostname, own.port) and parts.scheme == own.scheme
        except ValueError:
            host, is_own, parts = "", False, None
        if parts is None or not (is_own or (parts.scheme == "https" and _is_public(host))):
            raise RequestError(
                "the answer names a place that is not fetched (only https, or the endpoint itself)"
            )
        if not url.isascii() or not url.isprintable() or " " in url:
            raise RequestError("the answer names an address with characters that no address has")


def _is_public(host: str) -> bool:
    import ipaddress

    if not host or host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host


def _is_about_content(code: str, message: str) -> bool:
    text = f"{code} {message}".lower()
    return any(word in text for word in ("policy", "moderation", "safety"))


def _retry_after(reply: Reply) -> float | None:
    """Seconds from ``Retry-After``, which holds a number or a date; None where it holds neither."""
    text = reply.headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


class _Pace:
    """When the next request may start: evenly spaced, and not while the endpoint asked for a pause."""

    def __init__(self, per_minute: float) -> None:
        self._interval_s = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        self._stopped.set()

    def sleep(self, seconds: float) -> None:
        """Raises StoppedError when the run ends meanwhile."""
        if self._stopped.wait(max(0.0, seconds)):
            raise StoppedError("the run ended before an answer came")

    def hold(self, seconds: float) -> None:
        """No request starts before that many seconds have passed."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def wait(self) -> None:
        while True:
            with self._lock:
                now = time.monotonic()
                if now >= self._next:
                    self._next = now + self._interval_s
                    break
                left = self._next - now
            self.sleep(left)
        if self._stopped.is_set():
            raise StoppedError("the run ended before an answer came")
