"""The ledger's rows in plain dictionaries. With the rules of `core.ledger`, they are the executable specification."""

from __future__ import annotations

from litellm_budget_plugin.core.accounts import Account, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.row_store import Changes

_NEVER = 2**63


class DictRowStore:
    """Rows in plain dictionaries. Not safe for threads by itself."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, Subject], dict[Ref, Account]] = {}
        self._holds: dict[str, dict[str, Hold]] = {}
        self._open: dict[str, dict[str, Hold]] = {}
        self._usage: dict[str, dict[UsageKey, Usage]] = {}
        self._days: dict[tuple[str, Subject], set[UsageKey]] = {}
        """The keys of a subject's totals."""
        # No open hold's time limit is earlier than this, so most commands need not search all of them.
        self._soonest: dict[str, int] = {}

    def projects(self) -> set[str]:
        """Every project that has a row."""
        subjects = {project for (project, _), rows in self._accounts.items() if rows}
        return subjects.union(
            *({project for project, rows in kind.items() if rows} for kind in (self._holds, self._usage))
        )

    def keys(self, project: str) -> list[Subject | str | UsageKey]:
        """The keys of a project's rows, in order: subjects with accounts, then ids of holds, then keys of totals."""
        subjects = sorted(subject for (owner, subject), rows in self._accounts.items() if owner == project and rows)
        return [*subjects, *sorted(self._holds.get(project, ())), *sorted(self._usage.get(project, ()))]

    def accounts(self, project: str, subject: Subject) -> list[Account]:
        """Every account of a subject."""
        return [account.copy() for account in self._accounts.get((project, subject), {}).values()]

    def hold(self, project: str, hold: str) -> Hold | None:
        """A hold or a mark by its id."""
        found = self._holds.get(project, {}).get(hold)
        return found.copy() if found else None

    def due(self, project: str, now: int, most: int | None) -> list[Hold]:
        """Open holds whose time limit has come, in the order of (limit, id)."""
        if now < self._soonest.get(project, _NEVER):
            return []
        still_open = self._open.get(project, {}).values()
        due = [hold for hold in still_open if hold.at <= now]
        self._soonest[project] = min((hold.at for hold in still_open), default=_NEVER)
        return [hold.copy() for hold in sorted(due, key=lambda hold: (hold.at, hold.id))[:most]]

    def open_holds(self, project: str) -> list[Hold]:
        """Every open hold."""
        return [hold.copy() for _, hold in sorted(self._open.get(project, {}).items())]

    def usage(self, project: str, key: UsageKey) -> Usage | None:
        """One row of totals."""
        return self._usage.get(project, {}).get(key)

    def write(self, project: str, changes: Changes) -> None:
        """Apply the changes. An interrupt in the middle does not leave half of them."""
        usage = self._usage.get(project, {})
        totals = {key: usage.get(key, Usage()).plus(added) for key, added in changes.usage.items()}
        try:
            self._put(project, changes, totals)
        except BaseException:
            # Every row is replaced as a whole, so a second pass over all of them completes the write.
            self._put(project, changes, totals)
            raise

    def _put(self, project: str, changes: Changes, totals: dict[UsageKey, Usage]) -> None:
        for ref, account in changes.accounts.items():
            rows = self._accounts.setdefault((project, Subject(ref.scope, ref.subject)), {})
            if account is None:
                rows.pop(ref, None)
            else:
                rows[ref] = account
        holds, still_open = self._holds.setdefault(project, {}), self._open.setdefault(project, {})
        for hold in changes.holds.values():
            holds[hold.id] = hold
            if hold.state == "open":
                still_open[hold.id] = hold
                self._soonest[project] = min(hold.at, self._soonest.get(project, _NEVER))
            else:
                still_open.pop(hold.id, None)
        self._usage.setdefault(project, {}).update(totals)
        for key in totals:
            self._days.setdefault((project, Subject(key.scope, key.subject)), set()).add(key)

    def subjects(self, project: str, scope: str, after: str, most: int) -> list[str]:
        """Ids with an account in a scope, in order, one page."""
        ids = (
            subject.id
            for (owner, subject), rows in self._accounts.items()
            if owner == project and subject.scope == scope and subject.id > after and rows
        )
        return sorted(ids)[:most]

    def usage_rows(
        self, project: str, scope: str, subject: str | None, since: int, until: int
    ) -> list[tuple[UsageKey, Usage]]:
        """Totals in the order of their keys."""
        usage = self._usage.get(project, {})
        keys = usage.keys() if subject is None else self._days.get((project, Subject(scope, subject)), set())
        return sorted((key, usage[key]) for key in keys if key.scope == scope and since <= key.day <= until)

    def forget(self, project: str, before: int) -> int:
        """Delete marks closed before a time."""
        holds = self._holds.get(project, {})
        old = [hold.id for hold in holds.values() if hold.state != "open" and hold.at < before]
        for hold in old:
            del holds[hold]
        return len(old)

    def fold(self, project: str, before_day: int) -> int:
        """Add the totals of earlier days to day 0."""
        usage = self._usage.get(project, {})
        old = [key for key in usage if 0 < key.day < before_day]
        for key in old:
            folded = key._replace(day=0)
            usage[folded] = usage.get(folded, Usage()).plus(usage.pop(key))
            days = self._days[project, Subject(key.scope, key.subject)]
            days.discard(key)
            days.add(folded)
        return len(old)
