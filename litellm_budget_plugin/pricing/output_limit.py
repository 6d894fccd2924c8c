"""The number of tokens that the answer to a request may have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from litellm_budget_plugin.pricing.price_sheet import PriceSheet
from litellm_budget_plugin.pricing.scan import MOST_COPIES, MOST_TOKENS, count_of, number_of

DEFAULT_LIMIT = 4096
"""LiteLLM's DEFAULT_MAX_TOKENS: the limit that it sets for a caller who gives none, plus the thinking budget, if a
provider needs a limit.
"""


@dataclass(slots=True)
class OutputLimit:
    """The limits that a request states for its answer, in any family."""

    limit: int = 0
    """Tokens of one choice, thinking included, from the family's own arguments; 0 if none is stated."""
    unlimited: bool = False
    """Whether the limit may not reach the provider, or says that there is none."""
    raised: int = 0
    """The largest limit in any other place or spelling: the provider may obey that one."""
    choices: int = 1
    prompts: int = 1
    thinking: int = 0
    """The thinking budget, for a request without a limit."""
    beside: int = 0
    """Tokens that are billed as output in addition to each answer."""
    echoed: int = 0
    """Tokens of the prompts, if they are returned in front of the answers."""
    speaks: bool = False
    """Whether the answer may be audio."""
    tools: object = None

    @property
    def stated(self) -> bool:
        """Whether a limit reaches the provider."""
        return self.limit > 0 and not self.unlimited

    def state(self, *values: object) -> None:
        """Add limits from the family's own arguments. The largest counts, because providers differ in which one they
        obey.
        """
        for value in values:
            if value is None:
                continue
            tokens = tokens_of(value)
            self.limit = max(self.limit, tokens)
            self.unlimited = self.unlimited or not tokens

    def choose(self, *values: object) -> None:
        """Add numbers of choices. The largest counts."""
        for value in values:
            self.choices = max(self.choices, count_of(value, MOST_COPIES))

    def raise_to(self, limit: int, copies: int) -> None:
        """Add limits from places that the family does not document."""
        self.raised = max(self.raised, limit)
        if self.choices:
            self.choices = max(self.choices, copies)

    def tokens(self, sheet: PriceSheet, allowance: int) -> int:
        """Return the tokens of one choice; the most possible if a limit is stated."""
        found = self.limit if self.stated else max(self.limit, self._unstated(sheet, allowance))
        return max(found, self.raised)

    def output(self, tokens: int) -> int:
        """Return the tokens of all choices for all prompts, if one choice has `tokens`."""
        return ((tokens + self.beside) * self.prompts + self.echoed) * self.choices

    def _unstated(self, sheet: PriceSheet, allowance: int) -> int:
        tokens = min(allowance, sheet.max_output) if sheet.max_output else allowance
        if self.thinking:
            tokens = max(tokens, self.thinking + DEFAULT_LIMIT)
        return max(tokens, 0)


@cache
def litellm_limit() -> int:
    """Return the largest limit that LiteLLM may set by itself for a model whose maximum it does not know."""
    from litellm import constants

    names = ("DEFAULT_MAX_TOKENS", "DEFAULT_ANTHROPIC_CHAT_MAX_TOKENS")
    return max(DEFAULT_LIMIT, *(tokens_of(getattr(constants, name, 0)) for name in names))


def tokens_of(value: object) -> int:
    """Return a stated number of tokens, rounded up, also from text; 0 for other values and for those that mean no
    limit.
    """
    return 0 if number_of(value) == math.inf else count_of(value, MOST_TOKENS)


def thinking_budget(thinking: Any, *names: str) -> int:
    """Return the budget of `thinking` in Anthropic's and Google's form, in tokens; 0 if there is none."""
    if not isinstance(thinking, Mapping):
        return 0
    return max((tokens_of(thinking.get(name)) for name in names), default=0)
