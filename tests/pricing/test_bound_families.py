"""In every family, no answer within the stated limits costs more than the estimate if that is `bounded`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.pricing import estimate
from tests.generated import examples
from tests.pricing import bounds
from tests.pricing.fabricated import FAMILIES, charged, largest, models_of

# The least number of models of each family for which LiteLLM has a price, so that the comparison is not empty.
COMPARED = {
    "responses": 60, "responses of chat models": 1500, "messages": 1500, "generate_content": 1500,
    "image_generation": 85, "image_edit": 30, "image_edit of generating models": 60, "speech": 20, "transcription": 80,
    "rerank": 30, "ocr": 15, "search": 20, "video_generation": 60, "moderation": 2, "realtime": 0,
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@examples(150)
def test_no_answer_within_the_limits_costs_more_than_the_estimate(family: str, data: st.DataObject) -> None:
    mode, fabricate = FAMILIES[family]
    case = fabricate(data.draw, data.draw(st.sampled_from(models_of(mode))))
    found = estimate(case.request, output_allowance=1, unbounded_hold=0)
    cost = charged(case)
    if cost is not None and found.bounded:
        assert cost * 1e9 <= found.usd + 1e-3
    assert 0 <= found.floor <= found.usd
    assert found.floor_tokens <= max(found.tokens, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_model_of_the_map_holds_at_its_very_limit(family: str) -> None:
    mode, fabricate = FAMILIES[family]
    over = []
    compared = 0
    for model in models_of(mode):
        case = fabricate(largest, model)
        found = estimate(case.request, output_allowance=1, unbounded_hold=0)
        cost = charged(case)
        if cost is not None and found.bounded:
            compared += 1
            if cost * 1e9 > found.usd + 1e-3:
                over.append((model, cost, found.usd / 1e9))
    assert over == []
    assert compared >= COMPARED[family]


def test_the_listing_gives_a_reason_for_every_model_that_is_not_bounded() -> None:
    for row in bounds.rows():
        assert row.bounded + sum(row.reasons.values()) == row.priced <= row.models
        assert "" not in row.reasons
