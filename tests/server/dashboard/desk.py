"""Helpers for the tests of the dashboard: fill a ledger, log in, find a form on a page and send it."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote

import httpx

from litellm_budget_plugin.core.accounts import Account, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.applying import whole_mark
from litellm_budget_plugin.core.commands import Accounts, AccountState, PutBudget, Read, Settle
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.server.keys import Access, create_key
from litellm_budget_plugin.stores.protocol import Store, ask
from litellm_budget_plugin.stores.registry import open_store
from litellm_budget_plugin.stores.rows import Rows

PROJECT = "shop"
USD = 1_000_000_000
NASTY = "<script>window.hacked = 1</script>"
ODD_IDS = (
    NASTY,
    "\"><img src=x onerror='window.hacked=1'>",
    "../../v1/command?x=1#y",
    "a/b\\c&d=e%20f",
    "😀 日本語 \u202e rtl",
    "{{ 12345 * 54321 }}",
    "x" * 256,
)


def key_for(url: str, project: str = PROJECT, access: Access = "read-write") -> str:
    """Make a key on the ledger at `url`."""
    store = open_store(url)
    try:
        return create_key(store, project, access)[1]
    finally:
        store.close()


def account(
    user: str, limit: int | None = 10 * USD, spent: int = 0, held: int = 0, number: int = 0, **more: Any
) -> Account:
    """Return a user's account with its own limit."""
    now = time.time_ns() // 1000
    ref = Ref("user", user, more.pop("model", ""), more.pop("window", "none"))
    end = more.pop("end", None)
    models = {"gpt-4o": spent} if spent else {}
    return Account(
        ref, f"row{number}:{user[:40]}", now, now, end, True, limit, spent=spent, held=held, models=models, **more
    )


def load(url: str, accounts: Iterable[Account] = (), usage: Sequence[tuple[UsageKey, Usage]] = ()) -> None:
    """Load rows into the ledger at `url`; every call also counts for the project."""
    store, accounts = open_store(url), tuple(accounts)
    sums: dict[UsageKey, Usage] = {}
    for key, one in usage:
        total = UsageKey("project", PROJECT, key.day, key.model)
        sums[total] = sums.get(total, Usage()).plus(one)
    usage = [*usage, *sums.items()]
    for begin in range(0, max(1, len(accounts)), 5000):
        store.load(PROJECT, Rows(accounts[begin : begin + 5000], (), tuple(usage) if begin == 0 else ()))
    store.close()


def today() -> int:
    """Return the current day."""
    return time.time_ns() // 1000 // DAY


def charge(store: Store, user: str, cost: int, hold: str, model: str = "gpt-4o") -> None:
    """Charge a call."""
    payers = (Subject("user", user), Subject("project", PROJECT))
    ask(store, Settle(hold, PROJECT, payers, (model,), cost, model, 100, 20))


def put(store: Store, user: str, limit: int | None, window: str = "none") -> None:
    """Give a limit."""
    ask(store, PutBudget(f"put:{user}:{limit}", PROJECT, Subject("user", user), limit=limit, window=window))


def states_of(store: Store, user: str, scope: str = "user") -> tuple[AccountState, ...]:
    """Return a subject's accounts in the ledger, without the mark of a list set by hand."""
    reply = ask(store, Read(PROJECT, scope, user))
    assert isinstance(reply, Accounts)
    return tuple(state for state in reply.accounts if state.ref != whole_mark(Subject(scope, user)))


def state_of(store: Store, user: str, scope: str = "user") -> AccountState:
    """Return a subject's only account."""
    (state,) = states_of(store, user, scope)
    return state


def at(path: str, **parameters: str) -> str:
    """Return an address below the site."""
    return path + (
        "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items()) if parameters else ""
    )


class Form(NamedTuple):
    """A form on a page: its address and the fields that it sends unchanged."""

    action: str
    fields: dict[str, str]


def form_on(page: str, ending: str) -> Form:
    """Return the first form with an action, or a button's action, that ends with `ending`."""
    for attributes, inside in re.findall(r"<form\b([^>]*)>(.*?)</form>", page, re.DOTALL):
        actions = [_attribute(attributes, "action"), *re.findall(r'formaction="([^"]*)"', inside)]
        for action in (html.unescape(each) for each in actions if each.endswith(ending)):
            inputs = [
                tag for tag in re.findall(r"<input\b[^>]*>", inside) if 'type="radio"' not in tag or "checked" in tag
            ]
            return Form(action, {_attribute(tag, "name"): html.unescape(_attribute(tag, "value")) for tag in inputs})
    raise AssertionError(f"no form leads to {ending}")


def _attribute(tag: str, name: str) -> str:
    found = re.search(rf'\b{name}="([^"]*)"', tag)
    return found[1] if found else ""


def text_of(page: str) -> str:
    """Return the text of a page without its tags."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


class Tab:
    """A browser without a screen: it keeps cookies, sends an Origin with forms, and follows no redirect."""

    opened: ClassVar[list[Tab]] = []
    """The tabs to close after the test."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=60, headers={"Accept": "text/html"})
        Tab.opened.append(self)
        if key:
            answer = self.log_in(key)
            assert answer.status_code == 303, answer.text

    def get(self, path: str, **parameters: str) -> httpx.Response:
        """Request a page."""
        return self.http.get(at(path, **parameters))

    def page(self, path: str, **parameters: str) -> str:
        """Request a page that must exist, and return its text."""
        answer = self.get(path, **parameters)
        assert answer.status_code == 200, (answer.status_code, answer.headers, answer.text)
        return answer.text

    def post(self, path: str, fields: dict[str, str], **headers: str) -> httpx.Response:
        """Send a form, from this site unless the headers say otherwise; "" removes a header."""
        sent = {"origin": self.url, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.http.post(path, data=fields, headers={name: value for name, value in sent.items() if value})

    def send(self, page: str, ending: str, **fields: str) -> httpx.Response:
        """Send a form of a page with some fields filled in."""
        form = form_on(page, ending)
        return self.post(form.action, {**form.fields, **fields})

    def log_in(self, key: str) -> httpx.Response:
        """Send a key to the log-in."""
        return self.send(self.page("/login"), "/login", key=key)
