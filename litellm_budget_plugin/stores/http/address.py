"""An endpoint's URL: https://:KEY@host:port/prefix?header=Name:Value&connections=16&ca=/path/to/ca.pem"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from litellm_budget_plugin.errors import BudgetInputError

_CONNECTIONS = 16
_MOST_CONNECTIONS = 1000
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Address(NamedTuple):
    """The address of an endpoint, with the headers of every request to it. `name` contains no secret and is fit for
    messages; the repr shows nothing else.
    """

    name: str
    scheme: str
    host: str
    port: int
    path: str
    headers: tuple[tuple[str, str], ...]
    connections: int
    ca: str | None

    def __repr__(self) -> str:
        return f"Address({self.name!r})"


def parse_address(scheme: str, rest: str) -> Address:
    """The address of the URL `scheme://rest`. Raises BudgetInputError, whose text contains no secret."""
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:  # also raised for an invalid host name; the error's own text may contain the key
        raise BudgetInputError(
            f"{scheme}://… is not a valid URL; it must be like {scheme}://host:8321/prefix, and a key in it is "
            "percent-encoded, or better given as LITELLM_BUDGET_API_KEY"
        ) from None
    if not host or parts.fragment:
        raise BudgetInputError(
            f"{scheme}://… must be {scheme}://host/prefix, with a key as {scheme}://:KEY@host/prefix"
        )
    shown = f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    headers: dict[str, str] = {}
    connections, ca = _CONNECTIONS, None
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "header":
            header, _, content = value.partition(":")
            headers[header.strip().lower()] = _checked(shown, header.strip(), content.strip())
        elif name == "connections" and value.isdigit() and 1 <= int(value) <= _MOST_CONNECTIONS:
            connections = int(value)
        elif name == "ca" and value and scheme == "https":
            ca = value
        else:
            raise BudgetInputError(
                f"{shown}: ?{name}= is not accepted like this; accepted are header=Name:Value, connections=1 to "
                f"{_MOST_CONNECTIONS} and, with https, ca=/path/to/certificates.pem"
            )
    key = unquote(parts.password or parts.username or "")
    if key:
        headers.setdefault("authorization", _checked(shown, "authorization", f"Bearer {key}"))
    return Address(
        shown, scheme, host, port or (443 if scheme == "https" else 80), parts.path.rstrip("/"), tuple(headers.items()),
        connections, ca,
    )  # fmt: skip


def _checked(shown: str, name: str, value: str) -> str:
    if not _HEADER.fullmatch(name) or not value.isascii() or not value.isprintable():
        raise BudgetInputError(f"{shown}: the header {name!r:.80} must be Name:Value in printable ASCII")
    return value
