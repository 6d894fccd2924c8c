"""How many tokens the answer to a request may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from litellm_budget_plugin.pricing.terms import Terms

_MOST_TOKENS = 10**9
_MOST_CHOICES = 10**4
# LiteLLM sets max_tokens to the thinking budget plus its DEFAULT_MAX_TOKENS when the caller gives no limit.
_BESIDE_THINKING = 4096


@dataclass(slots=True)
class Asked:
    """What a request says of its answer, in any family's words."""

    limit: int = 0
    """Tokens of one choice, thinking included; 0 where none is stated."""
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

    def output(self, terms: Terms, allowance: int) -> int:
        """Tokens of all choices to all prompts, at most where a limit is stated."""
        tokens = self.limit or self._unlimited(terms, allowance)
        return ((tokens + self.beside) * self.prompts + self.echoed) * self.choices

    def _unlimited(self, terms: Terms, allowance: int) -> int:
        tokens = min(allowance, terms.max_output) if terms.max_output else allowance
        if self.thinking:
            tokens = max(tokens, self.thinking + _BESIDE_THINKING)
        return max(tokens, 0)


def token_limit(value: object) -> int:
    """A stated number of tokens, rounded up; 0 for what is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= _MOST_TOKENS:
        return int(value) if value == int(value) else int(value) + 1
    return 0


def choices(*values: object) -> int:
    """The largest of these numbers of choices, at least 1."""
    most = 1
    for value in values:
        if value is not None and isinstance(value, int) and not isinstance(value, bool) and value <= _MOST_CHOICES:
            most = max(most, value)
    return most


def budget(thinking: object) -> int:
    """The budget of `thinking` as Anthropic and LiteLLM take it, in tokens; 0 where there is none."""
    return thinking_tokens(thinking.get("budget_tokens")) if isinstance(thinking, Mapping) else 0


def thinking_tokens(value: object) -> int:
    """A number of tokens to think with; 0 for what is none."""
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST_TOKENS
    return value if valid and isinstance(value, int) else 0
