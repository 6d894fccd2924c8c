"""Jobs that a provider works on for hours: who pays for one, until LiteLLM reports what it has cost."""

from __future__ import annotations

from litellm_budget_plugin.manager.principal import Principal

_MOST = 10_000
_payers: dict[str, Principal] = {}


def started(principal: Principal, job: object) -> None:
    """The job with this id was started for this principal."""
    if isinstance(job, str) and job:
        _payers[job] = principal
        if len(_payers) > _MOST:
            _payers.pop(next(iter(_payers)), None)


def payers_of(job: object) -> Principal | None:
    """Who started a job in this process; None where it is not known here."""
    return _payers.get(job) if isinstance(job, str) else None
