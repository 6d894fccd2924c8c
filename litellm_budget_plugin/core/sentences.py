"""Budgets as people write them, one sentence for a limit:

    AMOUNT [per WINDOW | / WINDOW] [for MODEL]

    $10 per month            $1/day              $0.50                     US dollars
    100 calls/hour           2M tokens per week@Europe/Berlin              calls, tokens; k, M and B multiply
    $2/day for gpt-4o*       $5/month for openai/*                         one model with its dated versions, or a glob
    unlimited                unlimited for gpt-4o-mini                     recorded, never refused
    credit                                                                 needs a balance: money topped up and not spent

Without a window a limit never resets. Windows are those of core/windows.py, and `minute` and `hour` for lengths of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from litellm_budget_plugin.core.money import MAX_NANOS, charge_nanos, usd_text
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.windows import CREDIT, parse_window
from litellm_budget_plugin.errors import BudgetInputError

EXAMPLES = "'$10 per month', '100 calls/hour', '$2/day for gpt-4o*'"
"""The examples that an error message shows."""

_SENTENCE = re.compile(
    r"(?P<amount>.*?)(?:(?:\s*/\s*|\s+(?:per|a|an|each|every)\s+)(?P<window>[A-Za-z0-9:@_+/-]+))?(?:\s+for\s+(?P<model>\S.*))?",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER = r"(?P<number>[0-9][0-9_]*(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)(?P<times>[kMB]?)"
_AMOUNTS = {
    "usd": re.compile(
        rf"(?:\$\s*{_NUMBER}|{_NUMBER.replace('number', 'number_').replace('times', 'times_')}\s*(?:USD|dollars?))",
        re.IGNORECASE,
    ),
    "calls": re.compile(rf"{_NUMBER}\s*(?:calls?|requests?)", re.IGNORECASE),
    "tokens": re.compile(rf"{_NUMBER}\s*tokens?", re.IGNORECASE),
}
_TIMES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_LENGTHS = {"minute": "1m", "hour": "1h"}
# A comma between digits belongs to the number: "$1,000/month, $10/day" are two sentences.
_SEPARATOR = re.compile(r"\s*(?:,(?![0-9]{3}(?![0-9]))|(?<![0-9]),|[;\n])\s*")


class Limit(NamedTuple):
    """One limit: `amount` in `unit` ("usd": nano-dollars, "calls", "tokens"; None: unlimited) per `window`, for `model` ("": any).

    `str` gives its sentence, which reads back as the same limit.
    """

    amount: int | None
    window: str = "none"
    model: str = ""
    unit: str = "usd"

    def __str__(self) -> str:
        return self.sentence()

    def sentence(self, zone: str = "UTC") -> str:
        """Its sentence. It reads back as the same limit if windows that name no zone are read in `zone`."""
        if self.window == CREDIT:
            said = CREDIT
        elif self.amount is None:
            said = "unlimited" if self.unit == "usd" else f"unlimited {self.unit}"
        else:
            said = amount_text(self.amount, self.unit)
        if self.window not in ("none", CREDIT):
            said += f" per {window_text(self.window) if zone == 'UTC' else self.window}"
        return f"{said} for {self.model}" if self.model else said


def amount_text(amount: int, unit: str) -> str:
    """An amount in a unit, for people: "$0.05", "1 call", "2,000,000 tokens"."""
    if unit == "usd":
        text = usd_text(amount)
        return f"${text.removesuffix('.00')}"
    return f"{amount:,} {unit.removesuffix('s') if amount == 1 else unit}"


def window_text(window: str) -> str:
    """A window for people: "month" for "month@UTC", "hour" for "1h"."""
    for word, length in _LENGTHS.items():
        if window == length:
            return word
    return window.removesuffix("@UTC")


def parse_limit(sentence: str, zone: str = "UTC") -> Limit:
    """The limit that a sentence means; `zone` applies to calendar windows that name no zone.

    Raises BudgetInputError, which names the part that cannot be read and shows three sentences that can.
    """
    if not isinstance(sentence, str):
        raise BudgetInputError(f"a budget must be a sentence like {EXAMPLES}, got {sentence!r:.80}")
    text = " ".join(sentence.split())
    match = _SENTENCE.fullmatch(text)
    assert match is not None, "every part is optional"
    amount, window, model = match["amount"].strip(), match["window"], match["model"]
    try:
        return _limit(amount, window, model, zone)
    except BudgetInputError as error:
        raise BudgetInputError(
            f"{sentence!r:.200} is not a budget: {error}; budgets are written like {EXAMPLES}"
        ) from None


def _limit(amount: str, window: str | None, model: str | None, zone: str) -> Limit:
    for_model = "" if model is None or model == "*" else checked_id(model, "the model")
    if " " in for_model:
        raise BudgetInputError(
            f"the model {for_model!r:.80} has a space in it: a name, or a glob like 'gpt-4o*' or 'openai/*'"
        )
    if amount.lower() == CREDIT:
        if window or for_model:
            raise BudgetInputError("'credit' must stand alone: a balance has no window and applies to every model")
        return Limit(0, CREDIT)
    text = _window(window, zone)
    if amount.lower() in ("unlimited", "no limit"):
        return Limit(None, text, for_model)
    if match := re.fullmatch(r"unlimited (usd|calls|tokens)", amount, re.IGNORECASE):
        return Limit(None, text, for_model, match[1].lower())
    for unit, expression in _AMOUNTS.items():
        if match := expression.fullmatch(amount):
            return Limit(_amount(match, unit), text, for_model, unit)
    if not amount:
        raise BudgetInputError("it must begin with an amount: dollars, calls or tokens, 'unlimited' or 'credit'")
    raise BudgetInputError(
        f"{amount!r:.80} is not an amount: dollars like $0.50, calls like '100 calls', tokens like '2M tokens', 'unlimited' or 'credit'"
    )


def _window(window: str | None, zone: str) -> str:
    if window is None:
        return "none"
    period, at, named_zone = window.partition("@")
    period = _LENGTHS.get(period.lower(), re.sub(r"t(?=[0-9]{2}$)", "T", period.lower()))
    known = parse_window(period + at + named_zone, zone).text
    if known == CREDIT:
        raise BudgetInputError("'credit' is not a window")
    return known


def _amount(match: re.Match[str], unit: str) -> int:
    groups = match.groupdict()
    number = groups["number"] or groups["number_"]
    times = _TIMES[(groups["times"] or groups.get("times_") or "").lower()]
    try:
        value = Decimal(number.replace(",", "").replace("_", "")) * times
    except InvalidOperation:
        raise BudgetInputError(f"{number!r:.80} is not a number") from None
    if unit == "usd":
        # Not by round(), which fails on numbers that are too long for the context's precision.
        if value and -int(value.normalize().as_tuple().exponent) > 9:
            raise BudgetInputError(f"{number!r:.80} has more than nine decimals (one nano-dollar)")
        return charge_nanos(value, "the amount")
    if value != value.to_integral_value() or value > MAX_NANOS:
        raise BudgetInputError(f"{unit} must be whole numbers up to {MAX_NANOS}")
    return int(value)


def parse_limits(sentences: str | Iterable[str], zone: str = "UTC") -> tuple[Limit, ...]:
    """The limits of a list, or of one text with commas between its sentences. Raises BudgetInputError for a sentence that cannot
    be read, for two limits of one window, unit and model, and for "unlimited" beside a limit of the same model and unit.
    """
    if not isinstance(sentences, Iterable):
        raise BudgetInputError(f"budgets must be sentences like {EXAMPLES}, got {sentences!r:.80}")
    given = [sentences] if isinstance(sentences, str) else list(sentences)
    texts = [text for each in given for text in (_SEPARATOR.split(each.strip()) if isinstance(each, str) else [each])]
    limits = tuple(parse_limit(text, zone) for text in texts if text != "")
    seen: dict[tuple[str, str, str], Limit] = {}
    for limit in limits:
        key = (limit.model.casefold(), limit.unit, limit.window)
        if key in seen:
            raise BudgetInputError(f"'{seen[key]}' and '{limit}' limit the same thing: give one of them")
        seen[key] = limit
    for limit in limits:
        beside = [one for one in limits if (one.model, one.unit) == (limit.model, limit.unit) and one.window != CREDIT]
        if limit.amount is None and len(beside) > 1:
            raise BudgetInputError(
                f"'{limit}' must stand alone, but there is also '{next(one for one in beside if one is not limit)}'"
            )
    return limits
