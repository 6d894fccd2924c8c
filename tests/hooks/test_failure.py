"""The outcome of a request by the failure that ended it: over every exception class of the installed libraries."""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import litellm
import openai
import pytest

from litellm_budget_plugin.hooks.failure import Outcome, outcome_of
from tests.hooks.desk import INPUT, Desk

_LIBRARIES = (
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "aiohttp",
    "requests",
    "urllib3",
    "botocore",
    "websockets",
    "h11",
    "h2",
)
_OTHERS = ("anyio", "asyncio", "builtins", "concurrent", "http", "openai", "socket", "ssl")
_MODULES = re.compile(r"exception|error|client|connect|_api|_transport|ssl_match|streams")
# Server sides, and copies that nothing imports any more.
_NOT_CLIENTS = re.compile(r"aiohttp\.(web|_websocket)|botocore\.vendored|httpx2\.websockets\._transport")

_CONNECT_PHASE = re.compile(
    r"^Connect(Error|Timeout)|ClientConnector|ConnectionTimeout|ConnectionRefused|PoolTimeout|EmptyPool|NewConnection"
    r"|NameResolution|DNSError|Certificate|CertVerification|Handshake|UpgradeError|UnsupportedProtocol|^ProxyError"
    r"|ProxyConnection|HttpProxy|^gaierror|EndpointConnection|ConnectionFailed|Fingerprint|^InvalidURL$|^MissingSchema"
)
_AFTER_SENDING = re.compile(
    r"Read(Error|Timeout)|Write(Error|Timeout)|CloseError|ConnectionClosed|Remote|Payload|Disconnect|Decod|Incomplete"
    r"|ConnectionReset|Broken|Aborted|Cancel|EOF|EndOfStream|Stream(Error|Closed|Consumed)|Redirect(s|Client)|ChunkedEncoding"
    r"|ContentType|ProtocolError|^(Client)?OSError|^(Client)?ConnectionError|^(Server|API)?Timeout(Error|Exception)?$"
    r"|^SSLError|^RequestException|^HTTPClientError|^MaxRetry|NetworkError|APIConnection|ResponseValidation"
)
# Misleading names: processes and threads, bodies that cannot be sent, statuses of a handshake.
_MISLEADING = re.compile(
    r"WSServerHandshake|UnicodeDecode|AwsChunkedWrapper|UnseekableStream|BrokenWorker|BrokenBarrier|BrokenExecutor|BrokenThreadPool|BrokenProcessPool|RedirectHandshake|^OSError$"
)


def _load() -> None:
    for library in _LIBRARIES:
        try:
            root = importlib.import_module(library)
        except ImportError:
            continue
        for module in pkgutil.walk_packages(root.__path__, f"{library}."):
            if _MODULES.search(module.name) and not _NOT_CLIENTS.match(module.name):
                try:
                    importlib.import_module(module.name)
                except Exception:
                    # It needs another library, which is not installed and so raises nothing either.
                    continue


def _below(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    for one in type.__subclasses__(kind):
        yield one
        yield from _below(one)


def _classes() -> list[type[BaseException]]:
    _load()
    found = {
        kind
        for kind in _below(BaseException)
        if kind.__module__.partition(".")[0] in _LIBRARIES + _OTHERS
        and not _NOT_CLIENTS.match(kind.__module__)
        and not issubclass(kind, Warning)
        and not kind.__name__.endswith("ExceptionGroup")
        and not kind.__name__.startswith("_")
    }
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


def _bare(kind: type[BaseException]) -> BaseException:
    # Constructors differ. The class decides.
    return kind.__new__(kind)


def _named(pattern: re.Pattern[str]) -> list[type[BaseException]]:
    return [kind for kind in _classes() if pattern.search(kind.__name__) and not _MISLEADING.search(kind.__name__)]


def test_what_says_that_nothing_was_sent_is_free() -> None:
    kinds = _named(_CONNECT_PHASE)
    assert {kind.__module__.partition(".")[0] for kind in kinds} >= {
        "aiohttp",
        "httpx",
        "httpx2",
        "httpcore2",
        "urllib3",
    }
    assert [kind for kind in kinds if outcome_of(_bare(kind)) is not Outcome.FREE] == []


def test_what_may_come_after_sending_is_lost() -> None:
    kinds = [kind for kind in _named(_AFTER_SENDING) if not _CONNECT_PHASE.search(kind.__name__)]
    assert {kind.__module__.partition(".")[0] for kind in kinds} >= {
        "aiohttp",
        "httpx",
        "httpx2",
        "httpcore2",
        "urllib3",
    }
    assert [kind for kind in kinds if outcome_of(_bare(kind)) is not Outcome.LOST] == []


def test_no_error_of_a_transport_is_unknown() -> None:
    for library, root in (
        ("httpx", "HTTPError"),
        ("httpx2", "HTTPError"),
        ("aiohttp", "ClientError"),
        ("urllib3", "exceptions.HTTPError"),
    ):
        module: Any = importlib.import_module(library)
        for name in root.split("."):
            module = getattr(module, name)
        assert [kind for kind in _below(module) if outcome_of(_bare(kind)) is Outcome.UNKNOWN] == []


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_an_http_status_is_free(library: str) -> None:
    module = importlib.import_module(library)
    request = module.Request("POST", "http://localhost")
    error = module.HTTPStatusError("x", request=request, response=module.Response(500, request=request))
    assert outcome_of(error) is Outcome.FREE


def _raised(work: Callable[[], Any]) -> BaseException:
    with pytest.raises(BaseException) as caught:
        work()
    return caught.value


def _chained(outer: BaseException, inner: BaseException, *, explicit: bool) -> BaseException:
    def work() -> None:
        try:
            raise inner
        except BaseException as error:
            if explicit:
                raise outer from error
            raise outer  # noqa: B904  # an error that only came before

    return _raised(work)


def test_a_translation_is_as_free_as_what_it_translates() -> None:
    certificate = ssl.SSLCertVerificationError("x")
    assert outcome_of(_chained(httpx.ProtocolError("x"), certificate, explicit=True)) is Outcome.FREE
    assert (
        outcome_of(
            _chained(
                openai.APIConnectionError(request=httpx.Request("POST", "http://x")),
                httpx.ConnectError("x"),
                explicit=True,
            )
        )
        is Outcome.FREE
    )


def test_what_only_came_before_frees_nothing() -> None:
    assert outcome_of(_chained(httpx.ReadTimeout("x"), httpx.ConnectError("x"), explicit=False)) is Outcome.LOST
    assert outcome_of(_chained(asyncio.CancelledError(), httpx.ConnectError("x"), explicit=False)) is Outcome.LOST


def test_chains_without_end() -> None:
    first, second = httpx.ReadError("x"), httpx.ReadError("y")
    first.__cause__, second.__cause__ = second, first
    first.args = (first,)
    assert outcome_of(first) is Outcome.LOST


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def silent() -> Iterator[str]:
    """Return the address of a server that takes requests and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("library", ["httpx", "httpx2", "requests", "urllib3"])
def test_a_refused_connection_is_free_and_a_silent_one_is_lost(library: str, silent: str) -> None:
    module: Any = importlib.import_module(library)
    ask = {
        "urllib3": lambda url: module.PoolManager().request("POST", url, timeout=0.2, retries=False, body="x"),
    }.get(library, lambda url: module.post(url, data="x", timeout=0.2))
    assert outcome_of(_raised(lambda: ask(f"http://127.0.0.1:{_closed_port()}"))) is Outcome.FREE
    assert outcome_of(_raised(lambda: ask(silent))) is Outcome.LOST


def _ask(url: str) -> BaseException:
    import aiohttp

    async def work() -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_read=0.2)) as session:
            await session.post(url, data="x")

    return _raised(lambda: asyncio.run(work()))


def test_aiohttp(silent: str) -> None:
    assert outcome_of(_ask(f"http://127.0.0.1:{_closed_port()}")) is Outcome.FREE
    assert outcome_of(_ask(silent)) is Outcome.LOST


def test_botocore(silent: str) -> None:
    from botocore.awsrequest import AWSRequest
    from botocore.httpsession import URLLib3Session

    def ask(url: str) -> BaseException:
        request = AWSRequest("POST", url, data=b"x").prepare()
        return _raised(lambda: URLLib3Session(timeout=0.2).send(request))

    assert outcome_of(ask(f"http://127.0.0.1:{_closed_port()}")) is Outcome.FREE
    assert outcome_of(ask(silent)) is Outcome.LOST


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize("error", ["ConnectTimeout", "ReadTimeout"])
def test_a_client_of_the_application_is_charged_for_what_may_have_arrived(
    open_desk: Callable[..., Desk], library: str, error: str
) -> None:
    module: Any = importlib.import_module(library)
    desk = open_desk(default_limit="10")

    def fail(request: Any) -> Any:
        raise getattr(module, error)("x", request=request)

    transport = module.MockTransport(fail)
    client = openai.OpenAI(api_key="sk-test", max_retries=0, http_client=module.Client(transport=transport))
    with pytest.raises(litellm.Timeout):
        litellm.completion(**desk.arguments("alice", model=INPUT, client=client))
    spent = desk.calm("alice")
    assert spent == 0 if error == "ConnectTimeout" else spent > 0


def _answered(status: int) -> Exception:
    error = openai.OpenAIError("x")
    error.status_code = status  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize("explicit", [True, False])
def test_an_answer_that_cannot_be_read_was_served(explicit: bool) -> None:
    def unreadable() -> Exception:
        return json.JSONDecodeError("x", "<html>", 0)

    request = httpx.Request("POST", "http://localhost")
    refused = httpx.HTTPStatusError("x", request=request, response=httpx.Response(500, request=request))
    assert outcome_of(unreadable()) is Outcome.LOST
    assert outcome_of(_answered(200)) is Outcome.LOST
    assert outcome_of(_chained(_answered(200), unreadable(), explicit=explicit)) is Outcome.LOST
    # The unreadable answer came with an HTTP error.
    assert outcome_of(_chained(unreadable(), refused, explicit=explicit)) is Outcome.FREE
