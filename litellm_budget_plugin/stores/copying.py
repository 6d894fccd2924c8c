"""Copying a ledger from one store to another, of any engine, and verifying the copy.

A row of the target is only ever replaced if it is an earlier state of the same row, and is never deleted. So a copy loses nothing
that was charged on the target: if the target holds more than the source, the copy is refused before anything is written.

An interrupted copy is started again: it reads everything once more, because the source may have changed, and writes the missing
rows. At the end both sides are read and compared, row by row through `Totals.fingerprint`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.target_index import TargetIndex
from litellm_budget_plugin.stores.totals import Named, Totals, named, rows_of

_PAGE = 1000
_STOP = "stop every process that writes to either of them, and run it again"


class Progress(NamedTuple):
    """The progress of a project's copy. `step` is "comparing" (the target's existing rows with the source), "copying"
    or "verifying"; `rows` is the number of rows that this step has read.
    """

    project: str
    step: str
    rows: int


class Copied(NamedTuple):
    """A project that is equal on both sides. `written` is the number of rows that the target lacked."""

    project: str
    totals: Totals
    written: int


def copy(
    source: Store,
    target: Store,
    projects: Sequence[str] | None = None,
    *,
    replace: bool = False,
    progress: Callable[[Progress], object] = lambda _: None,
) -> list[Copied]:
    """Copy some projects (default: all) with every account, hold, mark and total, and verify them.

    The target's existing rows of a project must be rows of the source, as an interrupted copy leaves them. With
    `replace`, they may also be earlier states of the source's rows: this updates a copy that was made while the source
    was in use. `progress` is called after each page.

    Raises BudgetInputError for a project that the source lacks, and BudgetStoreError, naming the project and the
    remedy, if the target holds anything else (nothing of that project was written) or if one side changed meanwhile.
    """
    there = source.projects()
    wanted = there if projects is None else list(dict.fromkeys(projects))
    missing = sorted(set(wanted) - set(there))
    if missing or not wanted:
        has = f"it has {', '.join(map(repr, there))}" if there else "it is empty: is it the one that you meant?"
        lacks = f"no project {', '.join(map(repr, missing))}" if missing else "no project"
        raise BudgetInputError(f"the source has {lacks}; {has}")
    copied = [_copy(_Reader(project, progress), source, target, replace) for project in wanted]
    new = set(source.projects()) - set(there)
    if projects is None and new:
        raise BudgetStoreError(
            f"the source changed while it was copied: new projects {', '.join(sorted(new))}; {_STOP}"
        )
    return copied


class _Reader:
    """A reader of one project's rows that reports its progress."""

    def __init__(self, project: str, progress: Callable[[Progress], object]) -> None:
        self.project = project
        self._progress = progress

    def pages(self, store: Store, step: str, read: int = 0) -> Iterator[list[Named]]:
        """Yield every row, in pages; `read` rows of this step were read before."""
        after: str | None = ""
        while after is not None:
            page = store.export(self.project, after, _PAGE)
            after = page.after
            rows = list(named(page.rows))
            read += len(rows)
            yield rows
            self._progress(Progress(self.project, step, read))

    def totals(self, store: Store, read: int = 0) -> Totals:
        """The sum of all rows."""
        totals = Totals()
        for rows in self.pages(store, "verifying", read):
            for row in rows:
                totals.add(row)
        return totals


def _copy(reader: _Reader, source: Store, target: Store, replace: bool) -> Copied:
    project = reader.project
    with TargetIndex() as earlier:
        if project in target.projects():
            _compare(reader, source, target, earlier, replace)
        read, written = Totals(), 0
        for rows in reader.pages(source, "copying"):
            for row in rows:
                read.add(row)
            lacking = [row for row in rows if not earlier.has(row)]
            if lacking:
                target.load(project, rows_of(lacking))
                written += len(lacking)
    _verify(reader, source, target, read)
    return Copied(project, read, written)


def _compare(reader: _Reader, source: Store, target: Store, earlier: TargetIndex, replace: bool) -> None:
    """Raise BudgetStoreError if the target holds rows that the source does not have."""
    for rows in reader.pages(target, "comparing"):
        earlier.note(rows)
    differ = 0
    for rows in reader.pages(source, "comparing", earlier.left):
        for row in rows:
            changed, ahead = earlier.compare(row)
            differ += changed
            if ahead:
                raise BudgetStoreError(f"project {reader.project!r}: the target was used on its own: {ahead}; {_EMPTY}")
    if earlier.left:
        raise BudgetStoreError(
            f"project {reader.project!r}: the target holds {earlier.left} rows that the source does not have "
            f"({earlier.example()}); {_EMPTY}"
        )
    if differ and not replace:
        raise BudgetStoreError(
            f"project {reader.project!r}: the target holds {differ} rows that differ in the source; if they are left from an "
            "earlier copy, and the source was used since then, run it again with --replace (replace=True)"
        )


_EMPTY = "nothing was written. Copy into a store that is empty, or empty the target if nobody needs it"


def _verify(reader: _Reader, source: Store, target: Store, read: Totals) -> None:
    arrived = reader.totals(target)
    # The source is read last, so that its changes are found until the very end.
    now = reader.totals(source, arrived.rows)
    if now != read:
        raise BudgetStoreError(
            f"project {reader.project!r}: the source changed while it was copied (before and after: {read.differences(now)}); "
            f"{_STOP} with --replace (replace=True)"
        )
    if arrived != read:
        raise BudgetStoreError(
            f"project {reader.project!r}: the target does not hold what was copied (source and target: "
            f"{read.differences(arrived)}); another process uses it already: {_STOP}"
        )
