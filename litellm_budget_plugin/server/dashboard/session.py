"""The visitor of a page, the visitor's rights, and the check that a form comes from one of our own pages.

The cookie names a session (server/keys.py), which is looked up at every request: log-out and revoking the key end it, also for
somebody who has stolen the cookie. A form is accepted only from this site's own pages: the browser must name this site as the
form's origin, and the form must carry a token that another site cannot know. The token is derived from the session, or on a
server without keys from a random cookie.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.server.access import Caller, bearer
from litellm_budget_plugin.server.failures import Problem
from litellm_budget_plugin.server.keys import SESSION_SECONDS
from litellm_budget_plugin.server.site import Site
from litellm_budget_plugin.server.vetting import Vetting

_MOST_FIELDS = 30
_MOST_FORM = 32 * 1024


class NotLoggedIn(Problem):
    """A page that needs a key was requested without a valid one. The answer redirects to the log-in."""

    def __init__(self) -> None:
        super().__init__(401, "log in with an API key")


class NoProject(Problem):
    """A page of a project was requested, on a server without keys, without naming the project. The answer redirects to the
    choice.
    """

    def __init__(self) -> None:
        super().__init__(422, "the address must name a project: ?project=…")


@dataclass(frozen=True)
class Visitor:
    """Somebody who looks at a project. `token` goes into every form. `new_cookie` is the cookie that it is derived from, if the
    browser does not have it yet.
    """

    site: Site
    root: str
    caller: Caller | None
    project: str
    token: str
    new_cookie: str | None = None

    @property
    def name(self) -> str:
        """The visitor's name for the log: the key's id, never the key."""
        return "nobody" if self.caller is None else f"key {self.caller.name}" if self.logged_in else self.caller.name

    @property
    def label(self) -> str:
        """The visitor's name for people: the key's label."""
        return "nobody" if self.caller is None else self.caller.label or self.caller.name

    @property
    def writes(self) -> bool:
        """Whether forms are shown."""
        return self.caller is not None and self.caller.writes

    @property
    def logged_in(self) -> bool:
        """Whether there is a session to end."""
        return self.caller is not None and self.caller.project is not None

    def caller_writes(self) -> None:
        """Raise Problem for a key that only reads."""
        if self.caller is not None:
            self.caller.check_writes()

    def link(self, path: str, **parameters: object) -> str:
        """Return the address of a page of this site, below the path under which a proxy serves it."""
        query = {name: value for name, value in parameters.items() if value not in (None, "")}
        if self.project and self.caller is not None and self.caller.project is None:
            query = {"project": self.project, **query}
        return self.root + path + (f"?{urlencode(query, quote_via=quote)}" if query else "")

    def to(self, subject: Subject, path: str = "/subject", **parameters: object) -> str:
        """Return the address of a subject's page."""
        scope = "" if subject.scope == "user" else subject.scope
        return self.link(path, scope=scope, id="" if scope == "project" else subject.id, **parameters)


def root_of(request: Request) -> str:
    """Return the path under which a proxy serves the site, without a slash at its end."""
    return str(request.scope.get("root_path", "")).rstrip("/")


async def visitor(request: Request, project: str | None = None) -> Visitor:
    """Return the visitor of a page of a project: the key's project, or on a server without keys the one that the address names.

    Raises NotLoggedIn, NoProject, and Problem for a project that the key does not open.
    """
    return _of_project(request, await _admitted(request), project)


async def sender(request: Request) -> tuple[Visitor, dict[str, str]]:
    """Return the sender of a form from one of our pages, and its fields. A form is not read before its sender is authenticated.

    Raises what `visitor` raises, and Problem for a form that is not ours.
    """
    check_origin(request)
    caller = await _admitted(request)
    form = await form_of(request)
    who = _of_project(request, caller, form.get("project"))
    check_token(who, form)
    return who, form


async def _admitted(request: Request) -> Caller:
    door = Site.of(request).door
    text = door.cookie(request) or bearer(request)
    if not text and not await door.stands_open():
        raise NotLoggedIn
    try:
        # A program that fetches an export may send its key as it does to the API.
        return await door.admit(request, text, "lbs" if door.cookie(request) else "lbk")
    except Problem as problem:
        if problem.status == 401:
            raise NotLoggedIn from None
        raise


def _of_project(request: Request, caller: Caller, project: str | None) -> Visitor:
    named = request.query_params.get("project") if project is None else project
    if not named and caller.project is None:
        raise NoProject
    named = checked_id(named or caller.project, "project")
    caller.check_project(named)
    return _visitor(request, caller, named)


async def guest(request: Request) -> Visitor:
    """Return the visitor of a page that belongs to no project."""
    site = Site.of(request)
    caller = await site.door.admit(request, "") if await site.door.stands_open() else None
    return _visitor(request, caller, "")


def _visitor(request: Request, caller: Caller | None, project: str) -> Visitor:
    site = Site.of(request)
    if caller is not None and caller.project is not None:
        return Visitor(site, root_of(request), caller, project, _token_of(site.door.cookie(request) or bearer(request)))
    cookie = request.cookies.get(site.door.cookie_name("form"), "")
    new = None if len(cookie) >= 40 else secrets.token_urlsafe(32)
    return Visitor(site, root_of(request), caller, project, new or cookie, new)


def _token_of(session: str) -> str:
    return hmac.new(session.encode(), b"litellm-budget form", "sha256").hexdigest()


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form. Raises Problem for a body that is not a form, or is larger than any of ours."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Problem(415, "the body must be application/x-www-form-urlencoded")
    body = await request.body()
    if len(body) > _MOST_FORM:
        raise Problem(413, f"a form may have at most {_MOST_FORM} bytes")
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError as error:
        raise Problem(400, f"the body is not a form: {error!s:.200}") from None
    # A list of limits is longer than any text in a command.
    Vetting(text=_MOST_FORM, number=0, depth=1).check(fields)
    return fields


def check_origin(request: Request) -> None:
    """Raise Problem unless the browser says that a page of this site sends the request. Browsers do so with every form."""
    fetched = request.headers.get("sec-fetch-site")
    if fetched is not None:
        good = fetched == "same-origin"
    else:
        origin = urlsplit(request.headers.get("origin", ""))
        good = bool(origin.netloc) and origin.netloc.lower() == request.headers.get("host", "").lower()
    if not good:
        said = "from another site" if request.headers.get("origin") or fetched else "without saying from which site"
        raise Problem(403, f"this form was sent {said}, so nothing was changed; programs use /v1 and a key")


def check_token(visitor: Visitor, form: dict[str, str]) -> None:
    """Raise Problem unless the form carries the visitor's token."""
    sent = form.get("token", "").encode()
    # Without a cookie, the token is a new one, which no form can carry.
    if not hmac.compare_digest(sent, visitor.token.encode()):
        raise Problem(403, "this form has expired, so nothing was changed; go back, reload the page and send it again")


def remember_session(response: Response, visitor: Visitor, session: str) -> None:
    """Make the browser keep a session; "" deletes the one that it has."""
    _set(response, visitor, "session", session, SESSION_SECONDS if session else 0)


def remember_form(response: Response, visitor: Visitor) -> None:
    """Make the browser keep the cookie from which the tokens of a visitor without a key are derived."""
    if visitor.new_cookie is not None:
        _set(response, visitor, "form", visitor.new_cookie, SESSION_SECONDS)


def _set(response: Response, visitor: Visitor, what: str, value: str, seconds: int) -> None:
    secure = visitor.site.ledger.options.behind_tls
    response.set_cookie(
        visitor.site.door.cookie_name(what),
        value,
        max_age=seconds,
        # A cookie with the prefix __Host- must be for the whole host.
        path="/" if secure else visitor.root or "/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )
