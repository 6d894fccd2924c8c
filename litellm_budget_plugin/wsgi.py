"""BudgetMiddleware for WSGI, in Flask:

    app.wsgi_app = BudgetMiddleware(app.wsgi_app, user="X-User")
    app.register_error_handler(Exception, error_handler)

Django takes it as well, and whatever else speaks WSGI. None of them is imported here.
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
    """WSGI middleware: names who pays for the LLM calls of a request, and answers refusals with problem documents (RFC 9457).

    Takes the options of `litellm_budget_plugin.asgi.BudgetMiddleware`; functions get the environ and are sync. The user pays until
    the response is closed, also while it is iterated. Flask and Django make a response of every exception before a middleware sees it:
    `error_handler` and `DjangoRefusals` tell them how.
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
    """The application's response. Its steps run in a context of their own, because the thread serves other requests as well; its
    status and headers are held back until the first byte of the body, because as long as that is not there they can be replaced.
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
        """Call the application. Returns what the server iterates."""
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
            # Nothing of the application runs any more. The server knows the length of a list, and may send a file by itself.
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
        """End the response: what the application opened for it is closed, and nobody pays any more."""
        try:
            if hasattr(self._iterable, "close"):
                self._context.run(self._iterable.close)
        finally:
            self._leave()

    def _leave(self) -> None:
        self._context.run(self._entered.close)

    def _answer_to(self, error: Exception) -> Iterable[bytes] | None:
        """Begin to answer an error, None if that cannot be or is not ours to do."""
        problem = None if self._sent else self._context.run(problem_of, error)
        if problem is None:
            return None
        self._sent, self._held = True, None
        return _answer(problem, self._environ, self._start_response)

    # What the application calls.

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Write:
        if self._sent:
            # With an error and after the first byte, the server raises it.
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
    """A middleware for Django's `MIDDLEWARE`, the first in the list: "litellm_budget_plugin.wsgi.DjangoRefusals".

    It answers a refusal that a view raises with its problem document, under WSGI and ASGI, before Django makes a 500 of it.
    """

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Serve one request."""
        return self._get_response(request)

    def process_exception(self, request: Any, error: Exception) -> Any:
        """The problem document of a refusal, else None: Django goes on as it would."""
        problem = problem_of(error)
        if problem is None:
            return None
        from django.http import HttpResponse

        body = b"" if request.method == "HEAD" else problem.body
        return HttpResponse(body, status=problem.status, headers=problem.headers)
