"""Jobs that a provider works on for hours: who pays for them, and the charge when LiteLLM reports what one has cost."""

from __future__ import annotations

import threading
from collections import OrderedDict

from litellm_budget_plugin.core.accounts import Subject

_MOST = 10_000
_payers: OrderedDict[str, tuple[Subject, ...]] = OrderedDict()
_lock = threading.Lock()


def started(subjects: tuple[Subject, ...], job: object) -> None:
    """The job with this id was started by these payers."""
    if isinstance(job, str) and job:
        with _lock:
            _payers[job] = subjects
            while len(_payers) > _MOST:
                _payers.popitem(last=False)


def payers_of(job: object) -> tuple[Subject, ...] | None:
    """Who started a job in this process; None where it is not known here."""
    with _lock:
        return _payers.get(job) if isinstance(job, str) else None
