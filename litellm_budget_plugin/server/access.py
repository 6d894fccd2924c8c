"""Authentication: the caller that a request's key names, and the rights of that caller."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from starlette.requests import Request

from litellm_budget_plugin.core.commands import Command, Read, ReadUsage
from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.server.failures import Problem
from litellm_budget_plugin.server.history import HISTORY_PROJECT
from litellm_budget_plugin.server.keys import KEYS_PROJECT, Key, Kind, has_form
from litellm_budget_plugin.server.ledger import ServedLedger
from litellm_budget_plugin.server.limits import Buckets

_OF_PROXIES = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")
_LOCAL_NAMES = ("localhost", "127.0.0.1")
BYTES_COUNTED = 2048
"""Bytes of a large body that count as one request."""
HEALTH = ("/healthz", "/readyz")
_UNKNOWN = "this key is not valid here: is it complete, of this ledger, and not revoked?"
_BAD_KEYS_A_SECOND = 1.0
_BAD_KEYS_AT_ONCE = 20.0
_ANONYMOUS_A_SECOND = 50.0
_ANONYMOUS_AT_ONCE = 200.0


class Caller(NamedTuple):
    """The sender of a request. `project` is None on a server without keys, where a caller may use any project. `label` is the
    key's name for people.
    """

    name: str
    project: str | None
    writes: bool
    label: str = ""

    def opens(self, project: str) -> bool:
        """Return whether the caller may use this project."""
        return project not in (KEYS_PROJECT, HISTORY_PROJECT) and self.project in (None, project)

    def check_project(self, project: str) -> None:
        """Raise Problem unless the caller may use this project."""
        if not self.opens(project):
            raise Problem(403, f"this key does not open the project {project!r:.80}")

    def check_writes(self) -> None:
        """Raise Problem for a key that only reads."""
        if not self.writes:
            raise Problem(403, "this key is read-only")

    def check(self, command: Command) -> None:
        """Raise Problem unless the caller may send this command."""
        self.check_project(command.project)
        if not isinstance(command, (Read, ReadUsage)):
            self.check_writes()


_ANYBODY = Caller("anybody", None, writes=True)


class Door:
    """Authenticates callers by their keys, and limits how often they may ask."""

    def __init__(self, ledger: ServedLedger) -> None:
        self._ledger = ledger
        self._rates = Buckets(ledger.options.rate)
        # Separate from `_rates`, so that copying a ledger does not delay the calls of the same key.
        self._bodies = Buckets(ledger.options.rate)
        self._bad = Buckets(_BAD_KEYS_A_SECOND, _BAD_KEYS_AT_ONCE)
        self._anonymous = Buckets(_ANONYMOUS_A_SECOND, _ANONYMOUS_AT_ONCE)

    def check_rate(self, request: Request) -> None:
        """Raise Problem, 429, for an address that asks too often without a valid key. Health checks are exempt: a load balancer
        must not take the server for dead because of other clients behind the same proxy.
        """
        ring = self._ledger.ring
        if (self._ledger.options.open_access and not ring.keyed) or request.scope["path"].endswith(HEALTH):
            return
        if ring.find(bearer(request)) is None and ring.find(self.cookie(request), "lbs") is None:
            wait = self._anonymous.take(_address(request))
            if wait:
                raise Problem(429, "too many requests without a valid key", retry_after=wait)

    def cookie(self, request: Request) -> str:
        """Return the text of the browser's session, "" if it has none."""
        return request.cookies.get(self.cookie_name("session"), "")

    def cookie_name(self, what: str) -> str:
        """Return the name of a cookie. With https, its prefix keeps other hosts of the same domain from setting it."""
        return f"{'__Host-' if self._ledger.options.behind_tls else ''}litellm-budget-{what}"

    async def stands_open(self) -> bool:
        """Return whether no key is needed: the ledger never had one, and only this machine can reach the server. Raises
        Problem, 503, while the keys cannot be read.
        """
        if not self._ledger.options.open_access:
            return False
        if not self._ledger.ring.known:
            await self._read_keys()
        return not self._ledger.ring.keyed

    async def caller(self, request: Request) -> Caller:
        """Return the caller that a request's Authorization header names. Raises Problem: 401, 403 (on a server without keys),
        429, or 503 while the keys cannot be read.
        """
        return await self.admit(request, bearer(request))

    async def admit(self, request: Request, text: str, kind: Kind = "lbk") -> Caller:
        """Return the caller with the key or the session `text`, "" for none. Raises like `caller`."""
        if await self.stands_open():
            self._check_host(request)
            request.state.admitted = True
            return _ANYBODY
        key = self._ledger.ring.find(text, kind)
        if key is None:
            key = await self._looked_up(request, text, kind)
        request.state.admitted, request.state.key = True, key.id
        self._take(self._rates, key.id, 1)
        return Caller(key.id, key.project, key.access == "read-write", key.label)

    def count_body(self, request: Request, size: int) -> None:
        """Count a large body like the many small requests that it could replace. Raises Problem, 429."""
        key = getattr(request.state, "key", None)
        if key is not None and size > BYTES_COUNTED:
            self._take(self._bodies, key, size // BYTES_COUNTED)

    def _take(self, rates: Buckets, key_id: str, count: int) -> None:
        wait = rates.take(key_id, count)
        if wait:
            raise Problem(429, f"this key may send {self._ledger.options.rate:g} requests a second", retry_after=wait)

    async def _looked_up(self, request: Request, text: str, kind: Kind) -> Key:
        """Look up a key that this worker does not know: it may be new, or the keys could not be read so far. Raises Problem."""
        wait = self._bad.take(_address(request))
        if wait:
            raise Problem(429, "too many requests without a valid key", retry_after=wait)
        if has_form(text, kind):
            await self._read_keys()
        key = self._ledger.ring.find(text, kind)
        if key is None:
            raise Problem(401, _UNKNOWN if text else "this needs an API key: Authorization: Bearer lbk_…")
        return key

    async def _read_keys(self) -> None:
        try:
            await self._ledger.refresh()
        except BudgetStoreError as error:
            raise Problem(503, "the keys cannot be read now", retry_after=1.0) from error

    def _check_host(self, request: Request) -> None:
        """Raise Problem, 403, for a request through a proxy, or one that does not name this machine. Otherwise a page of another
        site could reach a server without keys through a browser here and a domain name that resolves to 127.0.0.1.
        """
        host = ""
        for name, value in request.scope["headers"]:
            if name == b"host":
                host = value.decode("latin-1")
            elif name in _OF_PROXIES:
                raise Problem(
                    403, "a server without keys does not answer behind a proxy: make a key (litellm-budget keys create)"
                )
        name = re.sub(r":[0-9]*$", "", host)
        if name not in _LOCAL_NAMES and not _is_loopback(name):
            raise Problem(
                403, f"a server without keys answers to localhost and loopback addresses only, not to {name!r:.80}"
            )


def bearer(request: Request) -> str:
    """Return the key in a request's Authorization header, "" for none."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


def _address(request: Request) -> str:
    """Return the address that a limit applies to. For IPv6 it is the network of 64 bits, because one client has all addresses
    in it.
    """
    host = request.client.host if request.client else "?"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4 or address.ipv4_mapped:
        return host
    return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
