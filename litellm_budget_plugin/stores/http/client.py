"""Requests to one endpoint: over kept-alive connections, within a deadline, and repeated if that is safe."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from importlib.util import find_spec
from typing import Any, NamedTuple

import httpcore

from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.http.address import Address
from litellm_budget_plugin.stores.http.deadline_backend import DeadlineBackend, set_deadline, trusted
from litellm_budget_plugin.stores.net.places import NoPlace, Places

_TRIES = 3
_PAUSE_SECONDS = 0.03
_IDLE_SECONDS = 60.0
_MOST_BYTES = 256 * 1024 * 1024
_AGAIN = (502, 503, 504)
_TEMPORARY = (408, 425, 429)
_TOO_LARGE, _TOO_OFTEN = 413, 429
_DIGITS = 6
_LOST = (httpcore.NetworkError, httpcore.ProtocolError)
_LATE = (httpcore.TimeoutException, TimeoutError)

_inherited: list[httpcore.ConnectionPool] = []
"""Connections that a fork copied into this process: never used and never closed."""


class TooLarge(BudgetStoreError):
    """The request was larger than the server or a proxy accepts."""


class Answer(NamedTuple):
    """An answer of the endpoint. The names of `headers` are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Own(NamedTuple):
    """The connections of one process, and its process id."""

    pid: int
    places: Places
    pool: httpcore.ConnectionPool


class HttpClient:
    """A client of an endpoint, for any number of threads and for children after a fork."""

    def __init__(self, address: Address) -> None:
        self.name = address.name
        self._address = address
        self._inside = threading.local()
        try:
            self._trusted = trusted(address.ca) if address.scheme == "https" else None
        except OSError as error:
            raise BudgetInputError(f"{self.name}: ca={address.ca} cannot be used: {error}") from error
        self.closed = False
        self._begin()

    def _begin(self) -> None:
        places = Places(self._address.connections)
        pool = httpcore.ConnectionPool(
            ssl_context=self._trusted,
            max_connections=self._address.connections,
            keepalive_expiry=_IDLE_SECONDS,
            http2=find_spec("h2") is not None,
            network_backend=DeadlineBackend(),
        )
        # Set in one step: otherwise another thread of a forked child could combine its own process id with the parent's connections.
        self._own = _Own(os.getpid(), places, pool)

    def post(self, path: str, body: object, deadline: float) -> Any:
        """The endpoint's decoded answer to an object. Raises BudgetInputError if the endpoint refuses the content,
        BudgetStoreError for any other bad answer, and the errors of `request`.
        """
        text = json.dumps(body, separators=(",", ":")).encode()
        return self.decoded(path, self.request("POST", path, text, deadline))

    def request(self, method: str, path: str, body: bytes | None, deadline: float) -> Answer:
        """The answer to a request, with any status, until `deadline` (time.monotonic).

        A request that loses its connection, or is answered 429 or 502 to 504, is sent again, at most twice: so send
        only requests that may be sent twice. Raises BudgetStoreUnavailable if no answer came.
        """
        if self.closed:
            raise BudgetStoreError(f"{self.name}: this store was closed")
        own = self._own
        if own.pid != os.getpid():
            _inherited.append(own.pool)
            self._begin()
            own = self._own
        if getattr(self._inside, "now", False):
            raise BudgetStoreUnavailable(f"{self.name}: called by a finalizer or signal handler inside its own request")
        try:
            place = own.places.enter(deadline)
        except NoPlace:
            raise BudgetStoreUnavailable(
                f"{self.name}: all {self._address.connections} connections are busy (more by ?connections=)"
            ) from None
        self._inside.now = True
        try:
            return self._tried(own.pool, method, path, body, deadline)
        finally:
            self._inside.now = False
            own.places.leave(place)

    def _tried(
        self, pool: httpcore.ConnectionPool, method: str, path: str, body: bytes | None, deadline: float
    ) -> Answer:
        began, tries = time.monotonic(), _TRIES
        while True:
            tries -= 1
            try:
                answer = self._once(pool, method, path, body, deadline)
            except _LATE:
                seconds = max(0.0, deadline - began)
                raise BudgetStoreUnavailable(f"{self.name}: no answer within {round(seconds, 2):g} s") from None
            except httpcore.ConnectError as error:
                raise BudgetStoreUnavailable(f"{self.name}: the connection could not be made: {error}") from error
            except _LOST as error:
                if not tries:
                    raise BudgetStoreUnavailable(f"{self.name}: the answer was lost: {error}") from error
                continue
            pause = random.uniform(_PAUSE_SECONDS / 3, _PAUSE_SECONDS)  # noqa: S311  # not a secret
            if answer.status == _TOO_OFTEN:
                pause += _retry_after(answer)
            if answer.status not in (*_AGAIN, _TOO_OFTEN) or not tries or time.monotonic() + pause >= deadline:
                return answer
            time.sleep(pause)

    def _once(
        self, pool: httpcore.ConnectionPool, method: str, path: str, body: bytes | None, deadline: float
    ) -> Answer:
        address = self._address
        set_deadline(deadline)
        url = httpcore.URL(
            scheme=address.scheme.encode(),
            host=address.host.encode(),
            port=address.port,
            target=(address.path + path).encode() or b"/",
        )
        headers: dict[bytes | str, bytes | str] = {"host": self._host, "content-type": "application/json"}
        headers.update(address.headers)
        waits = dict.fromkeys(("connect", "read", "write", "pool"), max(0.001, deadline - time.monotonic()))
        content = b"" if body is None else body
        with pool.stream(method, url, headers=headers, content=content, extensions={"timeout": waits}) as response:
            parts, size = [], 0
            for part in response.iter_stream():
                parts.append(part)
                size += len(part)
                if size > _MOST_BYTES:
                    raise BudgetStoreError(f"{self.name}: the answer has more than {_MOST_BYTES} bytes")
        found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return Answer(response.status, found, b"".join(parts))

    @property
    def _host(self) -> str:
        address = self._address
        host = f"[{address.host}]" if ":" in address.host else address.host
        usual = address.port == (443 if address.scheme == "https" else 80)
        return host if usual else f"{host}:{address.port}"

    def decoded(self, path: str, answer: Answer) -> Any:
        """The object in a good answer. Raises the matching error for every other answer; see `post`."""
        status, where = answer.status, f"{self.name}{path}"
        if 200 <= status < 300:
            try:
                return json.loads(answer.body) if answer.body else None
            except (ValueError, RecursionError) as error:
                raise BudgetStoreError(f"{where} answered something that is not JSON: {error!s:.200}") from None
        said = _message(answer)
        if status >= 500 or status in _TEMPORARY:
            raise BudgetStoreUnavailable(f"{where} answered {status}{said}")
        if status == 422 and "litellm-budget-protocol" in answer.headers:
            raise BudgetInputError(said.removeprefix(": "))
        if status in (401, 403):
            raise BudgetStoreError(
                f"{where} answered {status}{said}; give a key that opens this project "
                "(LITELLM_BUDGET_API_KEY; for a command, in the URL: https://:KEY@host, by env:NAME)"
            )
        if status == _TOO_LARGE:
            raise TooLarge(f"{where} answered 413{said}; let the proxy in front of it take larger bodies")
        if 300 <= status < 400:
            to = answer.headers.get("location", "somewhere else").partition("?")[0]
            raise BudgetStoreError(f"{where} answered {status} and redirects to {to:.200}; give the endpoint's own URL")
        raise BudgetStoreError(f"{where} answered {status}{said}")

    def close(self) -> None:
        """Close the connections. May be called twice."""
        self.closed = True
        if self._own.pid == os.getpid():
            self._own.pool.close()


def _retry_after(answer: Answer) -> float:
    """The seconds that the endpoint asks to wait; a date counts as none (RFC 9110, 10.2.3)."""
    said = answer.headers.get("retry-after", "")
    return float(said) if said.isascii() and said.isdigit() and len(said) < _DIGITS else 0.0


def _message(answer: Answer) -> str:
    """The message in an error answer, if it has our format."""
    try:
        data = json.loads(answer.body)
    except (ValueError, RecursionError):
        return ""
    message = data.get("message") if isinstance(data, dict) else None
    return f": {message:.2000}" if isinstance(message, str) else ""
