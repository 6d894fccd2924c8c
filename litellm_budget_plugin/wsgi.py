"""BudgetMiddleware for WSGI. In Flask:

    app.wsgi_app = BudgetMiddleware(app.wsgi_app, user="X-User")
    app.register_error_handler(Exception, error_handler)

It also works with Django and every other WSGI framework. This module imports none of them at import time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from contextvars import Context, copy_context
from typing import Any

from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.web.problems import Problem, bad_id, error_handler, problem_of
from litellm_budget_plugin.web.remaining import remaining, remaining_answer
from litellm_budget_plugin.web.requests import Headers, Middleware, Request

__all__ = ["BudgetMiddleware", "DjangoRefusals", "error_handler", "remaining"]

Environ = dict[str, Any]
Write = Callable[[bytes], Any]
StartResponse = Callable[..., Write]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


class BudgetMiddleware(Middleware):
    """WSGI middleware that names the user who pays for a request's LLM calls, and answers refusals with problem documents (RFC 9457).

    Takes the options of `litellm_budget_plugin.asgi.BudgetMiddleware`; functions get the environ and are sync. The user pays until
    the response is closed, also while it is iterated. Flask and Django turn every exception into a response before a middleware sees
    it: use `error_handler` and `DjangoRefusals` there.
    """

    app: App

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        try:
            found = {name: read(environ, _headers_of(environ)) for name, read in self.sources.items()}
            request = Request(self, found)
        except BudgetInputError as error:
            return _answer(bad_id(error), environ, start_response)
        response = _Response(environ, start_response)
        return response.begin(request, self._remaining if self._asks_for_remaining(environ) else self.app)

    def _asks_for_remaining(self, environ: Environ) -> bool:
        path = self.remaining_path
        return path is not None and environ["REQUEST_METHOD"] in ("GET", "HEAD") and environ.get("PATH_INFO") == path

    @staticmethod
    def _remaining(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return _answer(remaining_answer(), environ, start_response)


def _headers_of(environ: Environ) -> Headers:
    def headers(name: str) -> list[bytes]:
        value = environ.get("HTTP_" + name.upper().replace("-", "_"))
        try:
            return [] if value is None else [value.encode("latin-1")]
        except UnicodeEncodeError as error:
            raise BudgetInputError(f"the header {name} must be bytes") from error

    return headers


class _Response:
    """The application's response. Its steps run in their own context, because the thread also serves other requests. Its status and
    headers are held back until the first byte of the body, so that a problem document can replace them.
    """

    def __init__(self, environ: Environ, start_response: StartResponse) -> None:
        self._environ, self._start_response = environ, start_response
        self._context: Context = copy_context()
        self._entered = ExitStack()
        self._held: tuple[Any, ...] | None = None
        self._write: Write | None = None
        self._sent = False
        self._iterable: Any = ()
        self._steps: Iterator[bytes] = iter(())

    def begin(self, request: Request, app: App) -> Iterable[bytes]:
        """Call the application. Returns the iterable for the server."""
        self._context.run(self._entered.enter_context, request.entered())
        try:
            self._iterable = self._context.run(app, self._environ, self._start)
            self._steps = self._context.run(iter, self._iterable)
        except Exception as error:
            answer = self._answer_to(error)
            self._leave()
            if answer is None:
                raise
            return answer
        except BaseException:
            self._leave()
            raise
        if self._held is not None and self._is_plain():
            # No code of the application runs any more. The server knows the length of a list, and may send a file itself.
            self._send_held()
            self._leave()
            return self._iterable  # type: ignore[no-any-return]
        return self

    def _is_plain(self) -> bool:
        wrapper = self._environ.get("wsgi.file_wrapper")
        file = isinstance(wrapper, type) and isinstance(self._iterable, wrapper)
        return file or type(self._iterable) in (list, tuple)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while True:
            try:
                chunk: bytes = self._context.run(next, self._steps)
            except StopIteration:
                self._send_held()
                raise
            except Exception as error:
                answer = self._answer_to(error)
                if answer is None:
                    raise
                self._steps = iter(answer)
                continue
            if chunk:
                self._send_held()
            if self._sent:
                return chunk

    def close(self) -> None:
        """End the response: close the application's iterable; from now on the user no longer pays."""
        try:
            if hasattr(self._iterable, "close"):
                self._context.run(self._iterable.close)
        finally:
            self._leave()

    def _leave(self) -> None:
        self._context.run(self._entered.close)

    def _answer_to(self, error: Exception) -> Iterable[bytes] | None:
        """Begin to answer an error; None if there is no problem document for it, or if the response has begun."""
        problem = None if self._sent else self._context.run(problem_of, error)
        if problem is None:
            return None
        self._sent, self._held = True, None
        return _answer(problem, self._environ, self._start_response)

    # Called by the application.

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Write:
        if self._sent:
            # The server raises the error in exc_info, because the first byte was sent.
            return self._start_response(status, headers, exc_info)
        if self._held is not None and exc_info is None:
            raise AssertionError("start_response was called twice")
        self._held = (status, headers)
        return self._write_now

    def _write_now(self, data: bytes) -> Any:
        if data:
            self._send_held()
        return self._write(data) if self._write is not None else None

    def _send_held(self) -> None:
        if not self._sent:
            self._sent = True
            if self._held is not None:
                self._write = self._start_response(*self._held)


def _answer(problem: Problem, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response(f"{problem.status} {problem.reason}", list(problem.headers.items()))
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [problem.body]


class DjangoRefusals:
    """A middleware for Django's `MIDDLEWARE`, as the first in the list: "litellm_budget_plugin.wsgi.DjangoRefusals".

    It answers a refusal, or an unreachable ledger, that a view raises with its problem document, before Django turns it into a 500. It works under WSGI and ASGI.
    """

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Serve one request."""
        return self._get_response(request)

    def process_exception(self, request: Any, error: Exception) -> Any:
        """Return the problem document of a refusal or an unreachable ledger; None for other errors, which Django handles itself."""
        problem = problem_of(error)
        if problem is None:
            return None
        from django.http import HttpResponse

        body = b"" if request.method == "HEAD" else problem.body
        return HttpResponse(body, status=problem.status, headers=problem.headers)
