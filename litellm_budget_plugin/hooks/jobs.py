"""Jobs that a provider works on for hours, and their payers, until LiteLLM reports what a job has cost."""

from __future__ import annotations

from litellm_budget_plugin.manager.principal import Principal

_MOST = 10_000
_payers: dict[str, Principal] = {}


def started(principal: Principal, job: object) -> None:
    """Note that the job with this id was started for this principal."""
    if isinstance(job, str) and job:
        _payers[job] = principal
        if len(_payers) > _MOST:
            _payers.pop(next(iter(_payers)), None)


def payers_of(job: object) -> Principal | None:
    """Return the principal for whom a job was started in this process; None if it is unknown here."""
    return _payers.get(job) if isinstance(job, str) else None
