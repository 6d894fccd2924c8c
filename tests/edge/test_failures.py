"""The cost of a failed request, by the error of any library."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import litellm
import openai
import pytest

from tests.edge.desk import Edge
from tests.edge.provider import INPUT, BillingProvider

BYTES = 4_000
MOST = (BYTES + 200) * INPUT
"""The most nano-dollars for the input side of a call."""

LIBRARIES = ("httpx", "httpx2", "httpcore", "aiohttp", "requests.exceptions", "urllib3.exceptions")
CLIENTS = ("httpx2", "httpx")

# Raised before the first byte of a request has left, so nothing can have been billed.
NEVER_SENT = frozenset(
    {
        # httpx, httpx2, httpcore
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
        # aiohttp
        "ClientConnectorError",
        "ClientConnectorDNSError",
        "ClientConnectorCertificateError",
        "ClientConnectorSSLError",
        "ClientProxyConnectionError",
        "ConnectionTimeoutError",
        # requests
        "InvalidSchema",
        "MissingSchema",
        # urllib3
        "ConnectTimeoutError",
        "NewConnectionError",
        "NameResolutionError",
    }
)
# Raised when the request, or a part of it, may have been received, served and billed.
LOST = frozenset(
    {
        "ReadTimeout",
        "ReadError",
        "WriteTimeout",
        "WriteError",
        "CloseError",
        "RemoteProtocolError",
        "ServerDisconnectedError",
        "ServerTimeoutError",
        "SocketTimeoutError",
        "ClientPayloadError",
        "ClientOSError",
        "ConnectionError",
        "ChunkedEncodingError",
        "ReadTimeoutError",
        "IncompleteRead",
        "TimeoutException",
        "NetworkError",
    }
)


class Failure(NamedTuple):
    """An error class of a library; `free` says that no request can have been billed."""

    library: str
    kind: type[Exception]
    free: bool

    def __str__(self) -> str:
        return f"{self.library.partition('.')[0]}.{self.kind.__name__}"


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _failures() -> Iterator[Failure]:
    for library in LIBRARIES:
        found = vars(_module(library) or ModuleType("nothing"))
        for name in sorted(found):
            kind = found[name]
            if inspect.isclass(kind) and issubclass(kind, Exception) and name in NEVER_SENT | LOST:
                yield Failure(library, kind, name in NEVER_SENT)


FAILURES = tuple(_failures())


def _made(kind: type[Exception], request: Any) -> Exception:
    """Return an error as the library makes it."""
    key: Any = None
    if kind.__module__.startswith("aiohttp"):
        from aiohttp.client_reqrep import ConnectionKey

        key = ConnectionKey("127.0.0.1", 1, False, True, None, None, None)
    for given in (
        (key, OSError("x")) if key is not None else (None, "refused", "x"),
        (None, "http://127.0.0.1/", "x"),
        ("127.0.0.1", None, OSError("x")),
        (1, 2),
        (None, "x"),
        ("x",),
    ):
        try:
            error = kind(*given)
            assert str(error) is not None
        except Exception:
            continue
        if hasattr(error, "_request"):
            error._request = request
        return error
    raise AssertionError(f"no way is known to make {kind}")


def _arguments(provider: BillingProvider, **more: Any) -> dict[str, Any]:
    return {
        "model": "openai/edge-chat",
        "messages": [{"role": "user", "content": "x" * BYTES}],
        "max_tokens": 10,
        "max_retries": 0,
        "litellm_metadata": {"budget_user": "alice"},
        "api_key": "sk-test",
        "api_base": provider.url,
        **more,
    }


def _paid_by(user: str) -> dict[str, Any]:
    return {"litellm_metadata": {"budget_user": user}}


def _failing_client(http: Any, provider: BillingProvider, kind: type[Exception], *, awaited: bool) -> Any:
    """Return an application's own client whose transport raises an error of this class."""

    class Transport(http.BaseTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            raise _made(kind, request)

    class AsyncTransport(http.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            raise _made(kind, request)

    base = {"base_url": provider.url, "api_key": "sk-test", "max_retries": 0}
    if awaited:
        return openai.AsyncOpenAI(**base, http_client=http.AsyncClient(transport=AsyncTransport()))
    return openai.OpenAI(**base, http_client=http.Client(transport=Transport()))


def _own_client(http: Any, provider: BillingProvider, *, awaited: bool, url: str | None = None, **more: Any) -> Any:
    """Return an application's own client over a real connection."""
    base = {"base_url": url or provider.url, "api_key": "sk-test", "max_retries": 0, **more}
    if awaited:
        return openai.AsyncOpenAI(**base, http_client=http.AsyncClient(trust_env=False))
    return openai.OpenAI(**base, http_client=http.Client(trust_env=False))


def _call(awaited: bool, **arguments: Any) -> BaseException | None:
    try:
        if awaited:
            asyncio.run(litellm.acompletion(**arguments))
        else:
            litellm.completion(**arguments)
    except Exception as error:
        return error
    return None


def _accepts(http_name: str) -> Any:
    """Return the library if it is installed and the installed OpenAI takes its clients."""
    http = pytest.importorskip(http_name)
    try:
        openai.OpenAI(base_url="http://127.0.0.1:1", api_key="x", http_client=http.Client()).close()
    except TypeError:
        pytest.skip(f"OpenAI {openai.__version__} takes no client of {http_name}")
    return http


@pytest.fixture
def rich(open_edge: Callable[..., Edge]) -> Edge:
    return open_edge(default_limit="10")


BOTH = pytest.mark.parametrize("awaited", [False, True], ids=["sync", "awaited"])
HTTP = pytest.mark.parametrize("http_name", CLIENTS)


@BOTH
@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_an_error_of_any_library_costs_what_can_have_been_billed(failure: Failure, awaited: bool, rich: Edge) -> None:
    """Nothing if the request never left, else its input side."""
    http = _accepts("httpx2" if _module("httpx2") else "httpx")
    client = _failing_client(http, rich.provider, failure.kind, awaited=awaited)
    error = _call(awaited, **_arguments(rich.provider, client=client))
    assert error is not None
    del error, client
    spent = rich.calm("alice")
    if failure.free:
        assert spent == 0
    else:
        assert 0 < spent <= MOST


def test_every_library_that_is_installed_takes_part() -> None:
    libraries = {failure.library for failure in FAILURES}
    assert libraries == {name for name in LIBRARIES if _module(name) is not None}
    for library in libraries:
        kinds = {failure.free for failure in FAILURES if failure.library == library}
        assert kinds == {True, False}, library


@HTTP
@BOTH
def test_a_connection_that_is_refused_costs_nothing(http_name: str, awaited: bool, rich: Edge) -> None:
    client = _own_client(_accepts(http_name), rich.provider, awaited=awaited, url="http://127.0.0.1:1/v1")
    assert _call(awaited, **_arguments(rich.provider, client=client)) is not None
    assert rich.calm("alice") == 0


@HTTP
@BOTH
def test_a_read_timeout_costs_the_input(http_name: str, awaited: bool, rich: Edge) -> None:
    rich.provider.script["edge-chat"] = deque(["hang"])
    client = _own_client(_accepts(http_name), rich.provider, awaited=awaited)
    assert _call(awaited, **_arguments(rich.provider, client=client, timeout=0.3)) is not None
    assert rich.provider.requests == 1
    assert 0 < rich.calm("alice") <= MOST


@HTTP
@BOTH
def test_a_connection_that_is_cut_costs_the_input(http_name: str, awaited: bool, rich: Edge) -> None:
    rich.provider.script["edge-chat"] = deque(["cut"])
    client = _own_client(_accepts(http_name), rich.provider, awaited=awaited)
    assert _call(awaited, **_arguments(rich.provider, client=client)) is not None
    assert rich.provider.requests == 1
    assert 0 < rich.calm("alice") <= MOST


@HTTP
@BOTH
@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_a_status_costs_nothing(http_name: str, awaited: bool, status: int, rich: Edge) -> None:
    rich.provider.script["edge-chat"] = deque([status])
    client = _own_client(_accepts(http_name), rich.provider, awaited=awaited)
    assert _call(awaited, **_arguments(rich.provider, client=client)) is not None
    assert rich.provider.requests == 1
    assert rich.calm("alice") == 0


@HTTP
@BOTH
def test_an_own_client_is_charged_like_any(http_name: str, awaited: bool, rich: Edge) -> None:
    client = _own_client(_accepts(http_name), rich.provider, awaited=awaited)
    assert _call(awaited, **_arguments(rich.provider, client=client)) is None
    assert rich.calm("alice") == rich.provider.bill


@BOTH
def test_each_request_that_timed_out_is_charged(awaited: bool, rich: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that the provider's SDK repeats by itself: each may have been served and billed."""

    async def at_once(_: float) -> None:
        return None

    monkeypatch.setattr(time, "sleep", lambda _: None)
    for sdk in ("openai._base_client.anyio.sleep", "openai._base_client.time.sleep"):
        monkeypatch.setattr(sdk, at_once if "anyio" in sdk else lambda _: None)
    rich.provider.script["edge-chat"] = deque(["hang"] * 20)
    arguments = _arguments(rich.provider, timeout=0.2, num_retries=1)
    del arguments["max_retries"]
    assert _call(awaited, **arguments) is not None
    spent, requests = rich.calm("alice"), rich.provider.requests
    assert requests > 1
    assert rich.usage("alice").calls == requests
    assert _call(awaited, **{**arguments, "num_retries": 0, "max_retries": 0, **_paid_by("bob")}) is not None
    assert spent == requests * rich.calm("bob") > 0
