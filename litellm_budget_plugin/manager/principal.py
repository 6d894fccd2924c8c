"""The subjects whose budgets a call counts against."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.sentences import Limit
from litellm_budget_plugin.policy import Policy


class Given(NamedTuple):
    """The payers of a call that an application names in addition to the user. `limits` are pairs of a subject and its sentences."""

    team: str | None = None
    tags: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    user_class: str | None = None
    limits: tuple[tuple[Subject, tuple[str, ...]], ...] = ()


class Principal(NamedTuple):
    """The subjects whose budgets a call counts against, the paying user first, and the limits of those without limits set by hand."""

    subjects: tuple[Subject, ...]
    defaults: tuple[Default, ...]
    policy: Policy
    user_class: str | None = None
    limits: Mapping[Subject, tuple[Limit, ...]] = MappingProxyType({})
