"""The number of models in LiteLLM's cost map with a price, and with a proven bound as estimate, and the reasons for the
rest.

`python -m tests.pricing.bounds` prints it, for calls that state all they can: a limit, a size, seconds, pages.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import litellm

from litellm_budget_plugin.pricing import Request, estimate
from litellm_budget_plugin.pricing.cost_map import price_key
from litellm_budget_plugin.pricing.price_sheet import price_sheet
from litellm_budget_plugin.pricing.rates import BY_TOKENS
from tests.pricing.fabricated import FAMILIES, largest, models_of

_ASKED: dict[str, dict[str, object]] = {
    "completion": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 10},
    "text_completion": {"prompt": "x", "max_tokens": 10},
    "embedding": {"input": "x"},
}
_OLDEST = {"completion": "chat", "text_completion": "completion", "embedding": "embedding"}
_WHY = {
    "image_generation": "the tokens of an image, or the text beside it, are not documented",
    "image_edit": "the tokens of an image, or the text beside it, are not documented",
    "speech": "the tokens of the audio are not limited",
    "transcription": "the tokens of the sound, or of the transcript, are not limited",
    "ocr": "a page may take any number of credits",
    "realtime": "nothing of a session is known when it begins",
}


@dataclass(slots=True)
class Row:
    """The models of one mode, as one family of calls uses them."""

    family: str
    mode: str
    models: int = 0
    priced: int = 0
    bounded: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """The reasons why priced models are not bounded, with the number of models for each."""


def why(request: Request) -> str:
    """Return the reason why the estimate of a priced call that states its limits is not a proven bound."""
    if request.call_type in BY_TOKENS:
        return price_sheet(price_key(request)).open_because
    return _WHY.get(request.call_type, "")


def _row(family: str, mode: str, requests: list[Request]) -> Row:
    row = Row(family, mode, len(requests))
    for request in requests:
        found = estimate(request, output_allowance=4096, unbounded_hold=0)
        row.priced += found.priced
        row.bounded += found.bounded
        if found.priced and not found.bounded:
            row.reasons[why(request)] += 1
    return row


def rows() -> list[Row]:
    """Return one row for each family of calls and mode of models."""
    found = [
        _row(family, mode, [Request(family, model, None, _ASKED[family]) for model in models_of(mode)])
        for family, mode in _OLDEST.items()
    ]
    for family, (mode, fabricate) in FAMILIES.items():
        found.append(_row(family, mode, [fabricate(largest, model).request for model in models_of(mode)]))
    return found


def main() -> None:
    """Print the rows."""
    # LiteLLM prints a help text about some names that it looks up.
    litellm.suppress_debug_info = True
    for row in rows():
        print(f"{row.family} (mode {row.mode}): {row.models} models, {row.priced} priced, {row.bounded} bounded")
        for reason, number in row.reasons.most_common():
            print(f"    {number} not bounded: {reason}")


if __name__ == "__main__":
    main()
