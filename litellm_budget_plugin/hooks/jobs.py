"""Jobs that a provider works on for hours: who pays for one, until LiteLLM reports what it has cost."""

from __future__ import annotations

from litellm_budget_plugin.core.accounts import Subject

_MOST = 10_000
_payers: dict[str, tuple[Subject, ...]] = {}


def started(subjects: tuple[Subject, ...], job: object) -> None:
    """The job with this id counts against these subjects."""
    if isinstance(job, str) and job:
        _payers[job] = subjects
        if len(_payers) > _MOST:
            _payers.pop(next(iter(_payers)), None)


def payers_of(job: object) -> tuple[Subject, ...] | None:
    """Who started a job in this process; None where it is not known here."""
    return _payers.get(job) if isinstance(job, str) else None
