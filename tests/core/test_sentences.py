"""Budgets as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.core.models import covers
from litellm_budget_plugin.core.money import MAX_NANOS
from litellm_budget_plugin.core.sentences import EXAMPLES, Limit, parse_limit, parse_limits
from litellm_budget_plugin.errors import BudgetInputError
from tests.generated import examples

USD = 10**9

SENTENCES = {
    "$10 per month": Limit(10 * USD, "month@UTC"),
    "$1/day": Limit(USD, "day@UTC"),
    "$1 a day": Limit(USD, "day@UTC"),
    "$1 PER Day": Limit(USD, "day@UTC"),
    " $ 1  /  day ": Limit(USD, "day@UTC"),
    "10 USD per 12h": Limit(10 * USD, "12h"),
    "100 calls/hour": Limit(100, "1h", unit="calls"),
    "1 request per minute": Limit(1, "1m", unit="calls"),
    "1 call per 1m": Limit(1, "1m", unit="calls"),
    "2M tokens per week@Europe/Berlin": Limit(2_000_000, "week@Europe/Berlin", unit="tokens"),
    "2.5k tokens": Limit(2500, unit="tokens"),
    "$2/day for gpt-4o*": Limit(2 * USD, "day@UTC", "gpt-4o*"),
    "$5 / month:15T06@Europe/Berlin for openai/*": Limit(5 * USD, "month:15T06@Europe/Berlin", "openai/*"),
    "$0.50": Limit(USD // 2),
    "$.5": Limit(USD // 2),
    "$1,000.25/month": Limit(1000 * USD + USD // 4, "month@UTC"),
    "$0": Limit(0),
    "$10/daily": Limit(10 * USD, "1d"),
    "$1 for *": Limit(USD),
    "unlimited": Limit(None),
    "unlimited for gpt-4o-mini": Limit(None, model="gpt-4o-mini"),
    "unlimited tokens": Limit(None, unit="tokens"),
    "credit": Limit(0, "credit"),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_means_one_limit(sentence: str) -> None:
    assert parse_limit(sentence) == SENTENCES[sentence]


def test_a_window_without_a_zone_is_in_the_default_zone() -> None:
    assert parse_limit("$1/day", "Europe/Berlin").window == "day@Europe/Berlin"


AMOUNTS = st.integers(0, MAX_NANOS)
WINDOWS = st.sampled_from(("none", "1h", "1m", "90s", "7d", "day@UTC", "week:7@UTC", "month:15T06@Europe/Berlin"))
MODELS = st.sampled_from(("", "gpt-4o", "gpt-4o*", "openai/*", "per", "for", "claude-3@20240620"))
LIMITS = st.builds(Limit, AMOUNTS | st.none(), WINDOWS, MODELS, st.sampled_from(("usd", "calls", "tokens")))


@given(LIMITS | st.just(Limit(0, "credit")))
@examples(500)
def test_a_limit_reads_back_from_its_own_sentence(limit: Limit) -> None:
    assert parse_limit(str(limit)) == limit


@given(
    st.lists(LIMITS, max_size=4, unique_by=lambda limit: (limit.model, limit.unit)),
    st.sampled_from((", ", "; ", "\n")),
)
@examples(200)
def test_a_list_in_one_text_is_the_list_of_its_sentences(limits: list[Limit], separator: str) -> None:
    text = separator.join(map(str, limits))
    assert parse_limits(text) == tuple(limits)
    assert parse_limits([str(limit) for limit in limits]) == tuple(limits)


def test_commas_need_no_space_where_no_number_goes_on() -> None:
    assert parse_limits("$1,000/month,$10/day") == (Limit(1000 * USD, "month@UTC"), Limit(10 * USD, "day@UTC"))


BAD = {
    "": "must begin with an amount",
    "10": "'10' is not an amount",
    "$": "'$' is not an amount",
    "$-1": "is not an amount",
    "$1e3": "is not an amount",
    "5 apples": "'5 apples' is not an amount",
    "$1 per fortnight": "unknown window 'fortnight'",
    "$1/day@Mars/Base": "unknown time zone 'Mars/Base'",
    "$1/day for a b": "has a space in it",
    "$1/credit": "'credit' is not a window",
    "credit/day": "must stand alone",
    "credit for gpt-4o": "must stand alone",
    "0.5 calls": "whole numbers",
    "$0.0000000004/day": "nine decimals",
    "$123456789012345678901234567890/day": "is",
    "$0.1234567890123456789012345678901/day": "nine decimals",
    "$99999999999": "at most",
    "1,00 calls": "is not an amount",
    "NaN USD": "is not an amount",
    "$1/day/week": "unknown window 'day/week'",
}


@pytest.mark.parametrize("sentence", BAD)
def test_a_sentence_that_cannot_be_read_says_where_and_shows_three_that_can(sentence: str) -> None:
    with pytest.raises(BudgetInputError) as caught:
        parse_limit(sentence)
    assert repr(sentence) in str(caught.value)
    assert BAD[sentence] in str(caught.value)
    assert EXAMPLES in str(caught.value)


@given(st.text(max_size=40))
@examples(500)
def test_any_text_is_a_limit_or_a_clear_error(text: str) -> None:
    try:
        limit = parse_limit(text)
    except BudgetInputError as error:
        assert EXAMPLES in str(error)
    else:
        assert parse_limit(str(limit)) == limit


@pytest.mark.parametrize("value", [None, 5, b"$1", ["$1"]])
def test_what_is_no_text_is_an_error(value: object) -> None:
    with pytest.raises(BudgetInputError, match="a budget must be a sentence like"):
        parse_limit(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["$1/day, $2/day", "$1/day for gpt-4o, $2/day for GPT-4o", "unlimited, $5/day"])
def test_two_limits_for_the_same_are_an_error(text: str) -> None:
    with pytest.raises(BudgetInputError, match=r"limit the same thing|must stand alone"):
        parse_limits(text)


COVERED = [
    ("gpt-4o", "gpt-4o"),
    ("gpt-4o", "gpt-4o-2024-08-06"),
    ("gpt-4", "gpt-4-0613"),
    ("gpt-4", "gpt-4-1106-preview"),
    ("mistral-large", "mistral-large@2411-001"),
    ("OpenAI/*", "openai/*"),
    ("GPT-4o", "gpt-4o-2024-08-06"),
    ("claude-3-5-sonnet", "claude-3-5-sonnet-20241022"),
    ("claude-3-5-sonnet", "claude-3-5-sonnet@20240620"),
    ("claude-3-5-sonnet", "claude-3-5-sonnet-latest"),
    ("anthropic.claude-3-5-sonnet", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
    ("gemini-1.5-pro", "gemini-1.5-pro-002"),
    ("gpt-4o*", "gpt-4o-mini"),
    ("openai/*", "openai/*"),
    ("openrouter/openai/*", "openrouter/openai/gpt-4o"),
    ("o?", "o3"),
    ("a[b]*", "a[b]c"),
]
NOT_COVERED = [
    ("gpt-4o", "gpt-4o-mini"),
    ("gpt-4", "gpt-4o"),
    ("gpt-4", "gpt-4-32k"),
    ("gpt-4", "gpt-4-turbo-2024-04-09"),
    ("gpt-4o-2024-08-06", "gpt-4o"),
    ("openai/*", "azure/*"),
    ("openai/*", "openai/gpt-4o"),  # also a name of openrouter/openai/gpt-4o, which is not OpenAI's
    ("o?", "o3-mini"),
    ("gpt.4o", "gpt-4o"),
    ("a[b]*", "ab"),
]


@pytest.mark.parametrize(("model", "name"), COVERED)
def test_a_model_covers_its_versions_and_what_its_glob_matches(model: str, name: str) -> None:
    assert covers(model, name)


@pytest.mark.parametrize(("model", "name"), NOT_COVERED)
def test_a_model_covers_no_other(model: str, name: str) -> None:
    assert not covers(model, name)
