"""The possible cost of a failed request, read from the exception that ended it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum


class Outcome(Enum):
    """FREE: the provider refused the request or never got it. LOST: it may have been served and billed. UNKNOWN: the
    exception does not tell; it counts as lost if the request was sent.
    """

    FREE = "free"
    LOST = "lost"
    UNKNOWN = "unknown"


# Classes, listed by library and name. LiteLLM and applications bring several libraries in several versions, and none is
# imported here just for this check. The most specific listed class of an exception decides.
_REFUSED = {
    "httpx": "HTTPStatusError",
    "openai": "APIStatusError",
    "anthropic": "APIStatusError",
    "requests": "HTTPError",
    "botocore": "ClientError",
}
_NEVER_SENT = {
    "httpx": "ConnectError ConnectTimeout PoolTimeout ProxyError UnsupportedProtocol InvalidURL WebSocketUpgradeError",
    "httpcore": "ConnectError ConnectTimeout PoolTimeout ProxyError UnsupportedProtocol ConnectionNotAvailable",
    "aiohttp": "ClientConnectorError ConnectionTimeoutError ServerFingerprintMismatch ClientHttpProxyError InvalidURL",
    "requests": "ConnectTimeout ProxyError MissingSchema InvalidSchema InvalidURL InvalidHeader URLRequired",
    "urllib3": "NewConnectionError ConnectTimeoutError ProxyError EmptyPoolError LocationValueError CertificateError",
    "botocore": "EndpointConnectionError ConnectTimeoutError ProxyConnectionError",
    "websockets": "InvalidHandshake InvalidURI InvalidProxy",
    "anyio": "ConnectionFailed",
    "http": "InvalidURL",
    "builtins": "ConnectionRefusedError",
    "socket": "gaierror herror",
    "ssl": "SSLCertVerificationError",
}
_CUT_OFF = {
    "httpx": "HTTPError StreamError HTTPXWSException EndOfStream",
    "httpcore": "NetworkError TimeoutException ProtocolError",
    "aiohttp": "ClientError InvalidUrlRedirectClientError HttpProcessingError WebSocketError EofStream",
    "requests": "RequestException",
    "urllib3": "HTTPError",
    "botocore": "HTTPClientError ConnectionError EventStreamError IncompleteReadError ResponseParserError ParserError",
    "websockets": "WebSocketException",
    "grpc": "RpcError",
    "h11": "ProtocolError",
    "h2": "H2Error",
    "http": "HTTPException",
    "anyio": "BrokenResourceError ClosedResourceError EndOfStream IncompleteRead FutureCancelled TaskCancelled",
    "builtins": "TimeoutError ConnectionError EOFError",
    "ssl": "SSLError",
    # An answer that is not JSON.
    "json": "JSONDecodeError",
    "asyncio": "CancelledError TimeoutError",
    "concurrent": "CancelledError TimeoutError",
    # The SDK raises these for any connection problem; their causes may say more.
    "openai": "APIConnectionError APIResponseValidationError WebSocketConnectionClosedError",
    "anthropic": "APIConnectionError APIResponseValidationError",
}
_OUTCOMES = {
    (library, name): outcome
    for classes, outcome in ((_REFUSED, Outcome.FREE), (_NEVER_SENT, Outcome.FREE), (_CUT_OFF, Outcome.LOST))
    for library, names in classes.items()
    for name in names.split()
}


def outcome_of(error: BaseException) -> Outcome:
    """Return whether a request that ended with `error` may have been served.

    LiteLLM's exception wraps the provider library's exception, which wraps the transport's. The chain is read from the
    outside in, up to the first link that decides. LiteLLM's own classes decide only if nothing below them does, because
    LiteLLM uses the same ones for HTTP errors and lost connections. An HTTP error status means that nothing was billed.
    """
    otherwise = Outcome.UNKNOWN
    for link in _chain(error):
        outcome, library = _listed(link)
        if library == "json" or _says_success(link):
            # It was served and could not be read, unless the unreadable answer came with an HTTP error.
            otherwise = Outcome.LOST
        elif library == "openai" and type(link).__module__.startswith("litellm"):
            otherwise = outcome if outcome is Outcome.LOST else otherwise
        elif outcome is Outcome.UNKNOWN and _status(link) >= 400 and not type(link).__module__.startswith("litellm"):
            # The HTTP error of a library that is not listed, such as LiteLLM's own in Rust.
            return Outcome.FREE
        elif outcome is Outcome.FREE or (
            outcome is Outcome.LOST and any(_listed(cause)[0] is Outcome.FREE for cause in _causes(link))
        ):
            return Outcome.FREE
        elif outcome is Outcome.LOST:
            return Outcome.LOST
    # LiteLLM's status of a refusal, or a failure that an application has LiteLLM simulate: no answer was produced.
    refused = 400 <= _status(error) < 500 or any(kind.__name__ == "MockException" for kind in type(error).__mro__)
    return Outcome.FREE if otherwise is Outcome.UNKNOWN and refused else otherwise


def _status(error: BaseException) -> int:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else 0


def _says_success(error: BaseException) -> bool:
    """Whether LiteLLM's exception has the HTTP status of an answer: LiteLLM could not read the answer."""
    return 200 <= _status(error) < 300


def _listed(error: BaseException) -> tuple[Outcome, str]:
    """Return the outcome that the tables list for `error`, and the library whose class decides."""
    for kind in type(error).__mro__:
        library = kind.__module__.partition(".")[0]
        if library.startswith("http"):
            # httpx2 and httpcore2 are the same libraries under other names.
            library = library.rstrip("0123456789")
        if library == "aiohttp" and kind.__name__ == "ClientResponseError":
            # This class stands for HTTP errors and for answers that could not be read.
            status = getattr(error, "status", None)
            return (Outcome.FREE if isinstance(status, int) and status >= 400 else Outcome.LOST), library
        outcome = _OUTCOMES.get((library, kind.__name__))
        if outcome is not None:
            return outcome, library
    return Outcome.UNKNOWN, ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that `error` translates. For example, LiteLLM's aiohttp transport calls a failed TLS
    handshake a protocol error, and requests calls everything a connection error. Exceptions that only came earlier are
    not included, because they can belong to another request.
    """
    waiting = [error]
    seen: set[int] = set()
    while waiting:
        link = waiting.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        # urllib3 keeps it as `reason`, requests as an argument, botocore among its own keywords.
        kept = getattr(link, "kwargs", None)
        kept = kept.values() if isinstance(kept, dict) else ()
        inner = (link.__cause__, getattr(link, "reason", None), *link.args, *kept)
        waiting += [one for one in inner if isinstance(one, BaseException)]
