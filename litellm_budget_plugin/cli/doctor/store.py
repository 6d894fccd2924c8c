"""Checks of the store: whether it answers and accepts writes, its speed, its clock, and the free space on the disks."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import groupby

import click

from litellm_budget_plugin.cli.doctor.finding import Finding, failed, ok, warning
from litellm_budget_plugin.cli.ledgers import opened
from litellm_budget_plugin.core.accounts import SCOPES, Amounts, Subject
from litellm_budget_plugin.core.commands import MICROS, Granted, Read, Release, Renew, Reserve, Sweep
from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.journal import Journal
from litellm_budget_plugin.manager.journal_file import DEAD_LETTERS
from litellm_budget_plugin.manager.sharing import journal_directory, store_key
from litellm_budget_plugin.manager.standing import unnamed_accounts
from litellm_budget_plugin.policy import Policy
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.http.store import HttpStore
from litellm_budget_plugin.stores.protocol import Store, ask
from litellm_budget_plugin.stores.registry import masked, place_of, schema_version
from litellm_budget_plugin.stores.sqlite.files import path_from

_ASKED = 7
_WRITTEN = 3
_CLOCK_WARNING, _CLOCK_FAILED = 2.0, 60.0
"""Seconds of difference between this machine's clock and the store's."""
_DISK_WARNING, _DISK_FAILED = 2**30, 50 * 2**20
"""Free bytes."""


def open_it(settings: BudgetSettings) -> tuple[Store | None, Finding]:
    """Open the store, and return it (None if that fails) with a finding. No file is created."""
    url, begun = settings.url, time.perf_counter()
    name = masked(url)
    if url.lower().startswith("memory:"):
        advice = "name another store for more than one process, or to keep what was spent"
        return None, warning("store", "memory:// ends with each process: nothing is shared or kept", advice)
    try:
        store = opened(url)
    except click.ClickException as error:
        if url.lower().startswith("sqlite:") and not os.path.exists(path := path_from(url.partition("://")[2])):
            if os.access(os.path.dirname(path) or ".", os.W_OK):
                return None, warning("store", f"there is no ledger {path} yet", "a service creates it when it starts")
            return None, failed("store", f"{path} cannot be created", "name a directory that can be written")
        return None, failed("store", error.message, "correct LITELLM_BUDGET_STORE_URL")
    except BudgetError as error:
        return None, failed(
            "store", str(error), "calls are refused until the store answers, unless ON_STORE_ERROR=allow"
        )
    version = schema_version(url)
    what = "protocol" if isinstance(store, HttpStore) else "schema"
    said = f"{name} opened in {(time.perf_counter() - begun) * 1000:.0f} ms" + (
        f", {what} version {version}" if version else ""
    )
    return store, ok("store", said)


def check_answers(store: Store, settings: BudgetSettings) -> Iterator[Finding]:
    """Check how fast the store answers, and its clock. Raises BudgetError if it does not answer."""
    seconds, behind, doubt = [], 0.0, float("inf")
    for _ in range(_ASKED):
        begun, clock = time.perf_counter(), time.time()
        reply = ask(store, Read(settings.project, "user", "doctor"), settings.store_timeout * 8)
        seconds.append(took := time.perf_counter() - begun)
        if took < doubt:  # the fastest answer measures the clock best
            doubt, behind = took, clock + took / 2 - reply.now / MICROS
    yield _speed(
        "store speed", f"answers in {_ms(statistics.median(seconds))} (median of {_ASKED} requests)", seconds, settings
    )
    said = f"the store's clock is {abs(behind):.1f} s {'behind' if behind > 0 else 'ahead of'} this machine's"
    off = max(0.0, abs(behind) - doubt)
    advice = "synchronize both machines by NTP: windows begin and end by the store's clock"
    if off > _CLOCK_FAILED:
        yield failed("clock", said, advice)
    elif off > _CLOCK_WARNING:
        yield warning("clock", said, advice)
    else:
        yield ok("clock", "the store's clock and this machine's agree")


def check_writes(store: Store, settings: BudgetSettings) -> Finding:
    """Check how fast the store takes and releases a hold, in a separate project that is emptied afterwards. Raises BudgetError."""
    if settings.url.lower().startswith(("http:", "https:")):
        return _endpoint_writes(store, settings)
    project, seconds = f"doctor:{new_id()}", []
    subjects = (Subject("user", "doctor"), Subject("project", project))
    try:
        for number in range(_WRITTEN):
            begun = time.perf_counter()
            reply = ask(store, Reserve(f"doctor:{number}", project, subjects, ("doctor",), Amounts(1, 1, 1), MICROS))
            ask(store, Release(f"doctor:{number}", project))
            seconds.append((time.perf_counter() - begun) / 2)
            if not isinstance(reply, Granted):
                return failed("store writes", f"a hold was not granted: {reply}", "please report this")
    finally:
        _forget(store, project)
    return _speed(
        "store writes", f"takes and releases a hold in {_ms(statistics.median(seconds))} per step", seconds, settings
    )


def _forget(store: Store, project: str) -> None:
    begun = time.time()
    while ask(store, Sweep(project, 0, 0)).forgotten < _WRITTEN and time.time() - begun < 1:
        time.sleep(0.001)  # a mark of this very moment is not old enough


def _endpoint_writes(store: Store, settings: BudgetSettings) -> Finding:
    if not isinstance(store, HttpStore):
        return ok("store writes", "not tried: an endpoint of LiteLLM's protocol keeps whole records")
    if store.read_only:
        advice = "give services a key that may write: litellm-budget keys create"
        return warning("store writes", "the key is read-only: a callback does not start with it", advice)
    begun = time.perf_counter()
    ask(store, Renew((f"doctor:{new_id()}",), settings.project, MICROS))  # no such hold: nothing changes
    return ok("store writes", f"the key may write; it answers in {_ms(time.perf_counter() - begun)}")


def _speed(check: str, said: str, seconds: list[float], settings: BudgetSettings) -> Finding:
    median, most = statistics.median(seconds), settings.store_timeout
    if median >= most:
        advice = (
            "calls are handled by ON_STORE_ERROR: use a store that is nearer, or raise LITELLM_BUDGET_STORE_TIMEOUT"
        )
        return failed(check, f"{said}; a call waits for {most:g} s at most", advice)
    if median >= most / 4:
        return warning(check, f"{said}; a call waits for {most:g} s at most", "use a store that is nearer")
    return ok(check, said)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2g} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


def limited(store: Store, project: str, policy: Policy | None) -> tuple[bool, int]:
    """Return whether anybody has a limit in the ledger, and the number of accounts that count under limits that `policy` does
    not name. Only the first page of subjects of each scope is read.
    """
    states = [state for scope in SCOPES for state in ask(store, Read(project, scope)).accounts]
    accounts = 0
    for subject, some in groupby(states, key=lambda state: Subject(state.ref.scope, state.ref.subject)):
        if policy is not None and subject.scope != "run":  # a run's limits may come with its calls
            accounts += unnamed_accounts(subject, tuple(some), policy)
    return any(state.pinned for state in states), accounts


def check_disk(settings: BudgetSettings) -> Iterator[Finding]:
    """Check the free space on the disks of the ledger and the journal."""
    places = []
    if settings.url.lower().startswith("sqlite:"):
        places.append(os.path.dirname(path_from(settings.url.partition("://")[2])))
    journal = journal_directory(store_key(settings.url), settings.journal)
    if journal is not None:
        places.append(journal)
    seen: set[int] = set()
    for place in places:
        there = os.path.abspath(place)
        while not os.path.exists(there):
            there = os.path.dirname(there)
        device = os.stat(there).st_dev
        if device in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(there).free
        said = f"{free / 2**30:,.1f} GiB free in {there}"
        if free < _DISK_FAILED:
            yield failed("disk", said, "make room: without it charges cannot be written")
        elif free < _DISK_WARNING:
            yield warning("disk", said, "make room")
        else:
            yield ok("disk", said)


def check_journal(settings: BudgetSettings) -> Finding:
    """Check which charges wait on this machine for the store."""
    key = store_key(settings.url)
    place = journal_directory(key, settings.journal)
    if place is None:
        return ok("journal", "charges that the store cannot take are kept in the service's memory only")
    seen = Journal(place, place_of(key)).seen() if os.path.isdir(place) else []
    left = [one for one in seen if not one.in_use]
    waiting, lost = sum(one.entries for one in seen), sum(one.entries for one in left)
    if not lost:
        return ok(
            "journal",
            f"{waiting} charges of running processes are waiting"
            if waiting
            else "no charges are waiting for the store",
        )
    since = min((one.since for one in left if one.since is not None), default=None)
    when = "" if since is None else f", since {datetime.fromtimestamp(since / MICROS, timezone.utc):%Y-%m-%d %H:%M} UTC"
    aside = any(one.path.endswith(DEAD_LETTERS) for one in left)
    advice = f"litellm-budget journal STORE --deliver{' --aside' if aside else ''}; the next service runs --deliver by itself"
    return warning("journal", f"{lost} charges of ended processes are waiting{when}", advice)
