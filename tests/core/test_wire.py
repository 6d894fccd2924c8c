"""Commands and replies as JSON: what goes out comes back, and nothing else comes in."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import Amounts
from litellm_budget_plugin.core.commands import (
    KEEP,
    Command,
    PutBudget,
    Refused,
    Release,
    Reply,
    Reserve,
    Settle,
    Settled,
)
from litellm_budget_plugin.core.ledger import DictBook, apply
from litellm_budget_plugin.core.wire import decode, dumps, encode, loads
from litellm_budget_plugin.errors import BudgetInputError
from tests.commands import command_lists
from tests.core.desk import ALICE, NOON, PROJECT, Desk, limit, ref
from tests.generated import examples

CLASSES = (*get_args(Command), *get_args(Reply))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@examples(25)
@given(data=st.data())
def test_every_message_comes_back_as_it_was(cls: type, data: st.DataObject) -> None:
    message = data.draw(st.from_type(cls))
    back = loads(dumps(message))
    assert back == message
    assert repr(back) == repr(message)
    assert decode(encode(message)) == message


@given(command_lists(max_size=8))
def test_the_language_as_it_is_spoken_comes_back_as_it_was(commands: list[Command]) -> None:
    book = DictBook()
    for command in commands:
        messages: list[Command | Reply] = [command]
        try:
            messages.append(apply(book, command, command.now or 0))
        except BudgetInputError:
            event("refused before it was applied")
        for message in messages:
            assert repr(loads(dumps(message))) == repr(message)


def test_a_reserve_of_an_earlier_client_is_understood() -> None:
    """It has a field for the hold that it lies in, which is left empty; one that is not empty is refused."""
    reserve = Desk().reserve_command("a", 5)
    assert decode({**encode(reserve), "parent": None}) == reserve
    for said in ("slice", ""):
        with pytest.raises(BudgetInputError, match="Reserve has no field parent"):
            decode({**encode(reserve), "parent": said})


def test_a_message_is_an_object_with_its_type_and_what_is_not_kept() -> None:
    assert encode(Release("a", PROJECT)) == {"type": "Release", "hold": "a", "project": PROJECT, "now": None}
    encoded = encode(PutBudget("a", PROJECT, ALICE, limit=None, bounds=(1, None)))
    assert (encoded["limit"], encoded["bounds"], encoded["subject"]) == (None, [1, None], ["user", "alice"])
    assert "blocked" not in encoded
    decoded = loads(json.dumps(encoded))
    assert isinstance(decoded, PutBudget)
    assert decoded.blocked is KEEP


def test_what_a_stored_reply_says_is_what_a_repetition_gets() -> None:
    desk = Desk(limit(10))
    refusal = desk.refused("a", 11)
    assert desk.reserve("a", 11) == refusal == Refused("a", ref(), "spent", 10, 0, 0, 11, None)
    settled = desk.settle("b", 9, thresholds=(500_000,))
    assert isinstance(settled, Settled)
    assert len(settled.crossings) == 1
    assert desk.settle("b", 9, thresholds=(500_000,)) == settled


GOOD: dict[str, dict[str, Any]] = {
    "Reserve": encode(Reserve("h", PROJECT, (ALICE,), ("m",), Amounts(1), 5, (limit(3),), now=NOON)),
    "Settle": encode(Settle("h", PROJECT, (ALICE,), ("m",), 5, "m", thresholds=(1,), aliases=("x",))),
    "PutBudget": encode(PutBudget("c", PROJECT, ALICE, window="day", limit=5, spent=(("m", 5),), bounds=(0, 9))),
}


@pytest.mark.parametrize(
    ("message", "field", "bad"),
    [
        ("Reserve", "hold", 5),
        ("Reserve", "hold", None),
        ("Reserve", "subjects", "alice"),
        ("Reserve", "subjects", [["user"]]),
        ("Reserve", "subjects", [["user", 5]]),
        ("Reserve", "subjects", [["user", "a", "b"]]),
        ("Reserve", "models", ["m", None]),
        ("Reserve", "want", [1, 2, 3, 4]),
        ("Reserve", "want", ["one"]),
        ("Reserve", "want", [1.5]),
        ("Reserve", "want", 5),
        ("Reserve", "expires_after", "soon"),
        ("Reserve", "expires_after", None),
        ("Reserve", "defaults", [["user", "none", "much"]]),
        ("Reserve", "cheap", "perhaps"),
        ("Reserve", "rolls", [[["user", "alice"], None, 1]]),
        ("Reserve", "now", float("nan")),
        ("Reserve", "now", float("inf")),
        ("Settle", "cost", None),
        ("Settle", "cost", 0.5),
        ("Settle", "cost", {"usd": 5}),
        ("Settle", "thresholds", [None]),
        ("Settle", "aliases", "x"),
        ("PutBudget", "limit", "none"),
        ("PutBudget", "limit", [5]),
        ("PutBudget", "spent", [["m"]]),
        ("PutBudget", "spent", {"m": 5}),
        ("PutBudget", "bounds", [1]),
        ("PutBudget", "subject", None),
    ],
)
def test_a_field_that_does_not_fit_is_named(message: str, field: str, bad: Any) -> None:
    with pytest.raises(BudgetInputError, match=rf"{message}\.{field}"):
        decode({**GOOD[message], field: bad})


@pytest.mark.parametrize("message", list(GOOD))
def test_an_unknown_field_is_named(message: str) -> None:
    with pytest.raises(BudgetInputError, match=f"{message} has no field colour, shape"):
        decode({**GOOD[message], "shape": 1, "colour": 2})


@pytest.mark.parametrize("field", ["hold", "project", "subjects", "models", "want", "expires_after"])
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(BudgetInputError, match=rf"Reserve\.{field}"):
        decode({name: value for name, value in GOOD["Reserve"].items() if name != field})


@pytest.mark.parametrize(
    "bad", [None, 5, "Reserve", [], {}, {"type": None}, {"type": "Nothing"}, {"type": []}, {"type": {}}, {"type": 5}]
)
def test_what_is_no_message_is_an_input_error(bad: Any) -> None:
    with pytest.raises(BudgetInputError, match="message"):
        decode(bad)
    with pytest.raises(BudgetInputError, match="message"):
        loads(json.dumps(bad))


@pytest.mark.parametrize("bad", ["", "{", "nul", '{"type":', "\x00", "[" * 200_000, "1" * 5_000], ids=len)
def test_text_that_is_no_message_is_an_input_error(bad: str) -> None:
    with pytest.raises(BudgetInputError, match="message"):
        loads(bad)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(GOOD)), st.data())
def test_any_field_with_any_value_is_a_message_or_an_error_that_names_the_field(
    message: str, data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(sorted(GOOD[message].keys() - {"type"})))
    value = data.draw(JSON)
    try:
        decoded = decode({**GOOD[message], field: value})
    except BudgetInputError as error:
        assert f"{message}.{field}" in str(error)
    else:
        assert decode(encode(decoded)) == decoded


@given(JSON)
def test_any_json_is_a_message_or_an_input_error(value: Any) -> None:
    with pytest.raises(BudgetInputError):
        loads(json.dumps(value))
