"""The URLs of Redis: their syntax and their meaning."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.registry import masked

PREFIX = "litellm-budget:"
CONNECTIONS = 16
_PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}
_FORMS = {
    "single": "redis://[user:password@]host[:6379][/database]",
    "unix": "redis+unix://[user:password@]/path/to/redis.sock[?db=0]",
    "cluster": "redis+cluster://[user:password@]host[:6379][,host...]",
    "sentinel": "redis+sentinel://[user:password@]host[:26379][,host...]/master-name[/database]",
}
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_CHECKS: dict[str, dict[str, str | bool]] = {
    "ssl_cert_reqs": {"required": "required", "none": "none"},
    "ssl_check_hostname": {"true": True, "false": False},
}
"""The accepted values of the TLS checks, the default first."""
_PREFIX = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:/@\s]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class Address:
    """The address of a ledger. `kind` is "single", "unix", "cluster" or "sentinel"; `name` is the URL without its secrets."""

    name: str
    kind: str
    nodes: tuple[tuple[str, int], ...] = ()
    path: str = ""
    master: str = ""
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    tls: dict[str, str | bool] | None = field(default=None, repr=False)
    prefix: str = PREFIX
    connections: int = CONNECTIONS


def parse_address(scheme: str, rest: str) -> Address:
    """The address that a URL names; `rest` follows its "://". Raises BudgetInputError, saying what is accepted."""
    url = f"{scheme}://{rest}"
    base, _, flavour = scheme.partition("+")
    return _Parser(masked(url), flavour or "single", base == "rediss").address(rest)


class _Parser:
    def __init__(self, name: str, kind: str, secure: bool) -> None:
        self._name, self._kind, self._secure = name, kind, secure

    def address(self, rest: str) -> Address:
        place, _, query = rest.partition("?")
        options = self._options(query)
        secret, place = self._split(place)
        username, password = self._credentials(secret)
        hosts, slash, path = place.partition("/")
        nodes: tuple[tuple[str, int], ...] = ()
        socket_path = ""
        if self._kind == "unix":
            if hosts or not path:
                raise self._wrong("names no socket")
            master, database, socket_path = "", options.pop("db", "0"), unquote(f"/{path}")
        else:
            nodes = self._nodes(hosts)
            master, database = self._path(path if slash else "")
        return Address(
            name=self._name,
            kind=self._kind,
            nodes=nodes,
            path=socket_path,
            master=master,
            db=self._number(database, "database", 0),
            username=username,
            password=password,
            sentinel_username=options.pop("sentinel_username", None),
            sentinel_password=options.pop("sentinel_password", None),
            tls=self._tls(options),
            prefix=self._prefix(options.pop("prefix", PREFIX)),
            connections=self._number(options.pop("connections", f"{CONNECTIONS}"), "connections", 1),
        )

    def _wrong(self, what: str) -> BudgetInputError:
        return BudgetInputError(f"{self._name!r} {what}; accepted is {_FORMS[self._kind]}, rediss for TLS")

    def _options(self, query: str) -> dict[str, str]:
        accepted = ["prefix", "connections"]
        accepted += ["db"] if self._kind == "unix" else []
        accepted += ["sentinel_username", "sentinel_password"] if self._kind == "sentinel" else []
        accepted += [*_TLS_FILES, *_TLS_CHECKS] if self._secure else []
        options = dict(parse_qsl(query, keep_blank_values=True))
        for option in options:
            if option not in accepted:
                raise BudgetInputError(
                    f"{self._name!r} has the parameter {option!r}; accepted are {', '.join(accepted)}"
                )
        return options

    def _split(self, place: str) -> tuple[str, str]:
        if self._kind == "unix":  # a path may hold an @
            hosts, slash, path = place.partition("/")
            secret, _, hosts = hosts.rpartition("@")
            return secret, f"{hosts}{slash}{path}"
        secret, _, place = place.rpartition("@")
        return secret, place

    def _credentials(self, secret: str) -> tuple[str | None, str | None]:
        if not secret:
            return None, None
        username, colon, password = secret.partition(":")
        if not colon or not password:
            raise self._wrong("names a user without a password (a password alone is written :password@)")
        return unquote(username) or None, unquote(password)

    def _nodes(self, hosts: str) -> tuple[tuple[str, int], ...]:
        nodes = []
        for host in hosts.split(","):
            found = _HOST.fullmatch(host)
            if not found or not 0 < int(found[2] or 1) < 65536:
                raise self._wrong(f"has the host {host!r}" if host else "names no host")
            nodes.append((found[1].strip("[]"), int(found[2] or _PORTS[self._kind])))
        if self._kind == "single" and len(nodes) > 1:
            raise self._wrong("names several hosts, which takes redis+cluster:// or redis+sentinel://")
        return tuple(nodes)

    def _path(self, path: str) -> tuple[str, str]:
        if self._kind != "sentinel":
            if self._kind == "cluster" and path not in ("", "0"):
                raise self._wrong("names a database, and a cluster has none")
            return "", path or "0"
        master, _, database = path.partition("/")
        if not master:
            raise self._wrong("names no master")
        return unquote(master), database or "0"

    def _number(self, text: str, what: str, least: int) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= 10_000:
            raise self._wrong(f"has {text!r} for its {what}")
        return int(text)

    def _prefix(self, prefix: str) -> str:
        if not _PREFIX.fullmatch(prefix):
            raise self._wrong("has a prefix that is not 1 to 64 letters, digits, and characters of _.:/-")
        return prefix

    def _tls(self, options: dict[str, str]) -> dict[str, str | bool] | None:
        if not self._secure:
            return None
        tls: dict[str, str | bool] = {name: options[name] for name in _TLS_FILES if name in options}
        for name, meanings in _TLS_CHECKS.items():
            said = options.get(name, next(iter(meanings))).lower()
            if said not in meanings:
                raise self._wrong(f"has an {name} that is neither {' nor '.join(meanings)}")
            tls[name] = meanings[said]
        if tls["ssl_cert_reqs"] == "none":
            tls["ssl_check_hostname"] = False
        return tls
