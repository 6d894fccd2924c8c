"""How many tokens the answer to a request may have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from litellm_budget_plugin.pricing.price_sheet import PriceSheet
from litellm_budget_plugin.pricing.scan import MOST_COPIES, MOST_TOKENS, count_of, number_of

DEFAULT_LIMIT = 4096
"""LiteLLM's DEFAULT_MAX_TOKENS: its limit for a caller who gives none, plus the thinking budget, where a provider needs one."""


@dataclass(slots=True)
class OutputLimit:
    """What a request says of its answer, in any family's words."""

    limit: int = 0
    """Tokens of one choice, thinking included, in the family's own words; 0 where none is stated."""
    unlimited: bool = False
    """The limit may not reach the provider, or says that there is none."""
    raised: int = 0
    """The largest limit in any other place or spelling: it may be the one that the provider obeys."""
    choices: int = 1
    prompts: int = 1
    thinking: int = 0
    """The thinking budget, for a request without a limit."""
    beside: int = 0
    """Tokens that are billed as output beside each answer."""
    echoed: int = 0
    """Tokens of the prompts, where they come back in front of the answers."""
    speaks: bool = False
    """The answer may be audio."""
    tools: object = None

    @property
    def stated(self) -> bool:
        """The provider is told of a limit."""
        return self.limit > 0 and not self.unlimited

    def state(self, *values: object) -> None:
        """Take in limits in the family's own words. The largest counts: which one a provider obeys differs."""
        for value in values:
            if value is None:
                continue
            tokens = tokens_of(value)
            self.limit = max(self.limit, tokens)
            self.unlimited = self.unlimited or not tokens

    def choose(self, *values: object) -> None:
        """Take in numbers of choices; the largest counts."""
        for value in values:
            self.choices = max(self.choices, count_of(value, MOST_COPIES))

    def raise_to(self, limit: int, copies: int) -> None:
        """Take in what was found in places that the family does not document."""
        self.raised = max(self.raised, limit)
        if self.choices:
            self.choices = max(self.choices, copies)

    def tokens(self, sheet: PriceSheet, allowance: int) -> int:
        """Tokens of one choice, at most where a limit is stated."""
        found = self.limit if self.stated else max(self.limit, self._unstated(sheet, allowance))
        return max(found, self.raised)

    def output(self, tokens: int) -> int:
        """Tokens of all choices to all prompts, where one choice has so many."""
        return ((tokens + self.beside) * self.prompts + self.echoed) * self.choices

    def _unstated(self, sheet: PriceSheet, allowance: int) -> int:
        tokens = min(allowance, sheet.max_output) if sheet.max_output else allowance
        if self.thinking:
            tokens = max(tokens, self.thinking + DEFAULT_LIMIT)
        return max(tokens, 0)


@cache
def litellm_limit() -> int:
    """The largest limit that LiteLLM may set by itself for a model whose maximum it does not know."""
    from litellm import constants

    names = ("DEFAULT_MAX_TOKENS", "DEFAULT_ANTHROPIC_CHAT_MAX_TOKENS")
    return max(DEFAULT_LIMIT, *(tokens_of(getattr(constants, name, 0)) for name in names))


def tokens_of(value: object) -> int:
    """A stated number of tokens, rounded up, also as text; 0 for what is none, and for what means no limit."""
    return 0 if number_of(value) == math.inf else count_of(value, MOST_TOKENS)


def thinking_budget(thinking: Any, *names: str) -> int:
    """The budget of `thinking` as Anthropic and Google take it, in tokens; 0 where there is none."""
    if not isinstance(thinking, Mapping):
        return 0
    return max((tokens_of(thinking.get(name)) for name in names), default=0)
