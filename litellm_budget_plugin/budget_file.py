"""Budget files: limits of scopes, classes of users and single subjects.

A file is TOML, or YAML if its name ends so. It has a table for each scope, with `limits` for all of its subjects, and nested tables for
single subjects. It can also define classes of users:

    [user]
    limits = ["$1/day", "$10/month"]
    [class.pro]
    users  = ["alice", "*@corp.example"]
    limits = ["$50/month", "$5/day for o3*"]
    [user."bob"]
    limits = ["unlimited"]
    [team.search]
    limits = ["$500/month"]
    alert_at = [50, 80, 100]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import translate
from pathlib import Path
from typing import Any

from litellm_budget_plugin.core.accounts import SCOPES, Subject
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.sentences import parse_limits
from litellm_budget_plugin.errors import BudgetInputError, BudgetSettingsError
from litellm_budget_plugin.policy import Policy, Table, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_OPTIONS = ("limits", "alert_at")
_CLASS_OPTIONS = ("users", *_OPTIONS)
MOST_PER_CENT = 1000
_MOST_BYTES = 16 * 1024 * 1024
_MOST_NODES = 1_000_000
"""The most values that a YAML file may have, counting the values that its aliases repeat."""


def read_file(path: str | Path, zone: str, scopes: Mapping[str, Table], recorded: str = "none") -> Policy:
    """Return the policy of a file, together with the limits that the environment gives to whole scopes.

    Raises BudgetSettingsError for the first mistake, with the file, the line and the key; then nothing in the file takes effect.
    """
    try:
        text = _text(Path(path))
    except (OSError, ValueError) as error:
        raise BudgetSettingsError(f"{path}: the budget file cannot be read: {error}") from None
    yaml = str(path).lower().endswith((".yaml", ".yml"))
    try:
        return replace(_policy(_load(text, yaml=yaml), zone, scopes), recorded=recorded)
    except _Mistake as mistake:
        line = mistake.line or _line_of(text, mistake.keys, yaml=yaml)
        where = f"{path}, line {line}" if line else str(path)
        key = f": {'.'.join(mistake.keys):.400}" if mistake.keys else ""
        raise BudgetSettingsError(f"{where}{key}: {mistake}") from None


def _text(path: Path) -> str:
    # A pipe could block the start for ever, and can be read only once.
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
    # Editors on Windows begin a file with a byte order mark.
    return content.decode("utf-8-sig")


class _Mistake(Exception):
    def __init__(self, what: str, *keys: str, line: int | None = None) -> None:
        super().__init__(what)
        self.keys = keys
        self.line = line


def _load(text: str, *, yaml: bool) -> Any:
    if not yaml:
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"\(at line (\d+)", str(error))
            raise _Mistake(str(error), line=int(found[1]) if found else None) from None
        except (ValueError, RecursionError) as error:
            raise _Mistake(_unreadable(error)) from None
    import yaml as parser  # type: ignore[import-untyped]  # its stubs are a package of their own; only for files in YAML

    try:
        # Of repeated keys the YAML parser would silently take the last one.
        node = parser.compose(text, parser.SafeLoader)
        _check_keys(node, 0)
        return parser.safe_load(text)
    except parser.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise _Mistake(f"{getattr(error, 'problem', error)}", line=mark.line + 1 if mark else None) from None
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        # The parser raises these for values that do not fit their tag, or for impossible dates.
        raise _Mistake(_unreadable(error)) from None


def _unreadable(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else f"{error}"


def _check_keys(node: Any, seen: int) -> int:
    """Return how many nodes were seen. Raises _Mistake for a repeated key, for one that is no scalar, and for an ambiguous number."""
    seen += 1
    if seen > _MOST_NODES:
        raise _Mistake(f"it has more than {_MOST_NODES:,} values")
    if node is None or node.id == "scalar":
        # YAML reads 0123 as 83, and 12:30 as 750.
        if node is not None and node.tag.endswith(":int") and not re.fullmatch(r"-?(0|[1-9][0-9]*)", node.value):
            raise _Mistake(
                f"{node.value!r:.80} is a different number in YAML: write it in quotes", line=node.start_mark.line + 1
            )
        return seen
    if node.id == "sequence":
        for value in node.value:
            seen = _check_keys(value, seen)
        return seen
    keys = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.id != "scalar":
            raise _Mistake("a key must be a word or a number", line=line)
        _check_keys(key, seen)
        if key.value in keys:
            raise _Mistake(f"the key {key.value!r:.80} appears twice", line=line)
        keys.add(key.value)
        seen = _check_keys(value, seen)
    return seen


def _policy(data: Any, zone: str, scopes: Mapping[str, Table]) -> Policy:
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise _Mistake(f"a budget file is a table of {', '.join((*SCOPES, 'class'))}")
    by_scope, by_subject = dict(scopes), dict[Subject, Table]()
    for section, content in data.items():
        if section not in (*SCOPES, "class"):
            raise _Mistake(f"unknown table{nearest(str(section), (*SCOPES, 'class'))}", str(section))
        if section == "class":
            continue
        options, tables = _split(content, section)
        if options:
            _add_scope(by_scope, section, _table(options, zone, section))
        for name, entry in tables.items():
            subject = Subject(section, _id(name, section))
            if subject in by_subject:
                raise _Mistake("it appears twice", section, str(name))
            by_subject[subject] = _table(entry, zone, section, str(name))
    classes, members, patterns = _classes(data.get("class", {}), zone)
    return Policy(by_scope, by_subject, classes, members, patterns)


_Patterns = tuple[tuple[re.Pattern[str], str], ...]


def _classes(content: Any, zone: str) -> tuple[dict[str, Table], dict[str, str], _Patterns]:
    classes, members = dict[str, Table](), dict[str, str]()
    for name, entry in _tables(content, "class"):
        if name in classes:
            raise _Mistake("it appears twice", "class", name)
        classes[name] = _table(entry, zone, "class", name)
        for user in _users(entry, name):
            if members.setdefault(user, name) != name:
                raise _Mistake(f"the user {user!r} is also in the class {members[user]!r}", "class", name, "users")
    globs = [user for user in members if "*" in user or "?" in user]
    # Brackets in a user's id are literal, not character sets.
    patterns = tuple((re.compile(translate(glob.replace("[", "[[]"))), members.pop(glob)) for glob in globs)
    return classes, members, patterns


def _add_scope(scopes: dict[str, Table], scope: str, table: Table) -> None:
    if table.limits is not None and scope in scopes:
        raise _Mistake(
            f"the environment sets limits of every {scope} as well (LITELLM_BUDGET_*): give them in one place",
            scope,
            "limits",
        )
    scopes[scope] = table if table.limits is not None else table._replace(limits=scopes.get(scope, table).limits)


def _split(content: Any, section: str) -> tuple[dict[str, Any], dict[Any, Any]]:
    if not isinstance(content, dict):
        raise _Mistake("it must be a table, with limits = [...] or with tables in it", section)
    tables = {name: entry for name, entry in content.items() if isinstance(entry, dict)}
    if section == "project" and tables:
        raise _Mistake(
            "there is only one project; its limits belong in [project] itself", section, str(next(iter(tables)))
        )
    return {str(name): entry for name, entry in content.items() if not isinstance(entry, dict)}, tables


def _tables(content: Any, section: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(content, dict):
        raise _Mistake("it must hold a table for each class", section)
    for name, entry in content.items():
        if not isinstance(entry, dict):
            raise _Mistake("it must be a table, with users = [...] and limits = [...]", section, str(name))
        yield _id(name, section), entry


def _id(name: Any, section: str) -> str:
    try:
        return checked_id(name, section)
    except BudgetInputError as error:
        raise _Mistake(str(error), section, str(name)) from None


def _table(entry: Mapping[Any, Any], zone: str, *keys: str) -> Table:
    accepted = _CLASS_OPTIONS if keys[0] == "class" else _OPTIONS
    for name in entry:
        if name not in accepted:
            raise _Mistake(f"unknown key{nearest(str(name), accepted)}", *keys, str(name))
    limits = None
    if "limits" in entry:
        given = entry["limits"]
        if not isinstance(given, (str, list)):
            raise _Mistake("it must be a list of sentences like '$10 per month'", *keys, "limits")
        try:
            limits = parse_limits(given, zone)
        except BudgetInputError as error:
            raise _Mistake(str(error), *keys, "limits") from None
    return Table(limits, _alert_at(entry["alert_at"], *keys) if "alert_at" in entry else None)


def _alert_at(given: Any, *keys: str) -> tuple[int, ...]:
    values = given if isinstance(given, list) else [given]
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST_PER_CENT:
            raise _Mistake(f"it must be a list of percentages like [80, 100], got {value!r:.40}", *keys, "alert_at")
    return tuple(sorted(set(values)))


def _users(entry: Mapping[str, Any], name: str) -> list[str]:
    users = entry.get("users", [])
    if not isinstance(users, list):
        raise _Mistake("it must be a list of users' ids, or of globs like '*@corp.example'", "class", name, "users")
    try:
        return [checked_id(user, "a user") for user in users]
    except BudgetInputError as error:
        raise _Mistake(str(error), "class", name, "users") from None


_HEADER = re.compile(r"""\s*\[{1,2}(?P<path>(?:"[^"]*"|'[^']*'|[^\]"'])+)\]""")
_MOST_COLUMNS = 1000
_KEY = re.compile(r"""\s*-?\s*(?P<key>"[^"]*"|'[^']*'|[^\s:=\[\]#"']+)\s*[:=]""")


def _line_of(text: str, keys: tuple[str, ...], *, yaml: bool) -> int | None:
    """Return the number of the line with the last of `keys`, inside the table that the others name; else the table's line."""
    table, best, depth = (), None, 0  # type: tuple[str, ...], int | None, int
    indents: list[tuple[int, str]] = []
    for number, whole in enumerate(text.split("\n"), 1):
        line = whole[:_MOST_COLUMNS]
        if not yaml and (header := _HEADER.match(line)):
            table, indents = _parts(header["path"]), []
            path = table
        elif key := _KEY.match(line):
            indent = len(line) - len(line.lstrip())
            indents = [each for each in indents if each[0] < indent] if not table else []
            name = key["key"].strip("\"'")
            path = (*table, *(each[1] for each in indents), *((name,) if yaml else _parts(key["key"])))
            indents.append((indent, name))
        else:
            continue
        shared = min(len(path), len(keys))
        if path[:shared] == keys[:shared] and shared > depth:
            best, depth = number, shared
    return best


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|[^.\s]+", path))
