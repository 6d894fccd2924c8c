"""Commands and replies as JSON: every message survives the round trip, and nothing else is accepted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import Amounts, Default, Hold
from litellm_budget_plugin.core.commands import (
    KEEP,
    AlreadyCharged,
    Command,
    DropBudget,
    PutBudget,
    Read,
    Refused,
    Release,
    Reply,
    Reserve,
    Reset,
    SetLimits,
    Settle,
    Settled,
)
from litellm_budget_plugin.core.dict_row_store import DictRowStore
from litellm_budget_plugin.core.ledger import apply
from litellm_budget_plugin.core.row_store import Changes
from litellm_budget_plugin.core.sentences import Limit
from litellm_budget_plugin.core.wire import decode, dumps, encode, loads
from litellm_budget_plugin.errors import BudgetInputError
from tests.commands import command_lists
from tests.core.desk import ALICE, NOON, PROJECT, Desk, limit, ref
from tests.generated import examples

CLASSES = (*get_args(Command), *get_args(Reply))
WINDOWS = st.sampled_from(("none", "7d", "day@UTC", "month:15T06@Europe/Berlin"))
DEFAULTS = st.builds(Default, window=WINDOWS)
# Windows of commands are parsed and become canonical; every other text is unchanged.
OF_WINDOWS = {
    "window": {PutBudget: WINDOWS | st.just(KEEP), DropBudget: WINDOWS | st.none(), Reset: WINDOWS | st.none()},
    "defaults": dict.fromkeys((Reserve, Settle, PutBudget, SetLimits, Read), st.lists(DEFAULTS, max_size=2).map(tuple)),
    "limits": {SetLimits: st.lists(st.builds(Limit, window=WINDOWS), max_size=2).map(tuple) | st.none()},
}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@examples(25)
@given(data=st.data())
def test_every_message_comes_back_as_it_was(cls: type, data: st.DataObject) -> None:
    given = {name: strategies[cls] for name, strategies in OF_WINDOWS.items() if cls in strategies}
    message = data.draw(
        st.builds(
            cls, **{**{field.name: st.from_type(get_type_hints(cls)[field.name]) for field in fields(cls)}, **given}
        )
    )
    back = loads(dumps(message))
    assert back == message
    assert repr(back) == repr(message)
    assert decode(encode(message)) == message


@given(command_lists(max_size=8))
def test_the_language_as_it_is_spoken_comes_back_as_it_was(commands: list[Command]) -> None:
    book = DictRowStore()
    for command in commands:
        messages: list[Command | Reply] = [command]
        try:
            messages.append(apply(book, command, command.now or 0))
        except BudgetInputError:
            event("refused before it was applied")
        for message in messages:
            assert repr(loads(dumps(message))) == repr(message)


def test_a_reserve_of_an_earlier_client_is_understood() -> None:
    """It has a field for the hold that contains it. An empty field is accepted, any other value is refused."""
    reserve = Desk().reserve_command("a", 5)
    assert decode({**encode(reserve), "parent": None}) == reserve
    for said in ("slice", ""):
        with pytest.raises(BudgetInputError, match="Reserve has no field parent"):
            decode({**encode(reserve), "parent": said})


# In the format of earlier versions: without thresholds, and with some.
EARLIER_SETTLES = [
    '{"type":"Settle","hold":"a","project":"app","subjects":[["user","alice"]],"models":["gpt-4o"],"cost":9,"model":"gpt-4o",'
    '"input_tokens":5,"output_tokens":6,"calls":1,"defaults":[["user","none",1000,"","usd",0]],"parent":null,"aliases":["response"],'
    f'"unless":null,"thresholds":{thresholds},"at":1774734000000000,"rolls":[],"now":null}}'
    for thresholds in ("[]", "[800000,1000000]")
]
EARLIER_SETTLED = [
    f'{{"type":"Settled","hold":"a","crossings":{crossings}}}'
    for crossings in ("[]", '[[["user","alice","","none","usd"],1728043200000000,100,800000,90]]')
]


@pytest.mark.parametrize("text", EARLIER_SETTLES)
def test_a_charge_of_an_earlier_client_is_understood(text: str) -> None:
    assert loads(text) == Settle(
        "a", PROJECT, (ALICE,), ("gpt-4o",), 9, "gpt-4o", 5, 6, 1, (limit(1000),), None, ("response",), at=1774734000000000
    )  # fmt: skip


@pytest.mark.parametrize("text", EARLIER_SETTLED)
def test_a_reply_of_an_earlier_server_is_understood(text: str) -> None:
    assert loads(text) == Settled("a")


@pytest.mark.parametrize("text", EARLIER_SETTLED)
def test_a_charge_that_an_earlier_version_has_recorded_is_not_charged_again(text: str) -> None:
    desk = Desk(limit(100))
    desk.book.write(PROJECT, Changes({}, {"a": Hold("a", "settled", NOON, reply=text)}, {}))
    assert desk.settle("a", 9) == Settled("a")
    assert desk.book.accounts(PROJECT, ALICE) == []
    assert desk.hold("a").reply == text


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
    desk.settle("b", 9, aliases=("x",))
    assert desk.settle("c", 9, unless="x") == desk.settle("c", 9) == AlreadyCharged("c")
    assert desk.spent_held() == (9, 0)


@pytest.mark.parametrize(
    ("text", "canonical"), [("day", "day@UTC"), ("daily", "1d"), ("60m", "1h"), ("week:1", "week@UTC")]
)
@pytest.mark.parametrize("cls", OF_WINDOWS["window"])
def test_two_texts_of_one_window_name_one_account(cls: Any, text: str, canonical: str) -> None:
    assert decode(
        {"type": cls.__name__, "id": "c", "project": PROJECT, "subject": ["user", "alice"], "window": text}
    ) == cls("c", PROJECT, ALICE, window=canonical)


@pytest.mark.parametrize("cls", OF_WINDOWS["defaults"])
def test_windows_of_defaults_become_canonical(cls: Any) -> None:
    said = _populated(cls) | {"type": cls.__name__, "defaults": [["user", "month", 5], ["team", "day@UTC", 6]]}
    if "window" in said:
        said["window"] = "none"
    command: Any = decode(said)
    assert command.defaults == (Default("user", "month@UTC", 5), Default("team", "day@UTC", 6))
    with pytest.raises(BudgetInputError, match=rf"{cls.__name__}\.defaults: unknown window 'fortnight'"):
        decode({**said, "defaults": [["user", "fortnight", 5]]})


def test_a_window_that_there_is_not_is_an_error_that_names_the_field() -> None:
    with pytest.raises(BudgetInputError, match=r"PutBudget\.window: unknown window 'fortnight'"):
        decode({**GOOD["PutBudget"], "window": "fortnight"})


def _example(kind: Any) -> Any:
    """JSON of a value of this type with nothing left out."""
    if get_origin(kind) in (Union, UnionType):
        return _example(next(each for each in get_args(kind) if each is not type(None) and not _is_enum(each)))
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if get_origin(kind) is tuple:
        return [_example(each) for each in get_args(kind) if each is not Ellipsis]
    if is_dataclass(kind):
        return _populated(kind)
    if hasattr(kind, "_fields"):
        return [_example(each) for each in get_type_hints(kind).values()]
    return {int: 5, str: "none", bool: False}[kind]


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _populated(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: _example(hints[field.name]) for field in fields(cls)}


def _changed(value: Any) -> Iterator[Any]:
    """Yield the JSON with one of its leaves in another type, which some readers would convert."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from ({**value, name: other} for other in _changed(each))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from (value[:place] + [other] + value[place + 1 :] for other in _changed(each))
    else:
        yield from {bool: (0, 1, 0.0, "false"), int: (True, "5", " 5", 5.0, 5.5), str: (5, True, 5.5, ["none"])}[
            type(value)
        ]


@pytest.mark.parametrize(("cls", "field"), [(cls, field.name) for cls in CLASSES for field in fields(cls)])
def test_no_value_of_another_type_is_converted(cls: type, field: str) -> None:
    """In any field of any message, at any depth."""
    good = {"type": cls.__name__, **_populated(cls)}
    decode(good)
    wrong = [{**good, field: other} for other in _changed(good[field])]
    assert len(wrong) >= 4
    for said in wrong:
        with pytest.raises(BudgetInputError, match=rf"{cls.__name__}\.{field}"):
            decode(said)


GOOD: dict[str, dict[str, Any]] = {
    "Reserve": encode(Reserve("h", PROJECT, (ALICE,), ("m",), Amounts(1), 5, (limit(3),), now=NOON)),
    "Settle": encode(Settle("h", PROJECT, (ALICE,), ("m",), 5, "m", aliases=("x",))),
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
        ("Settle", "aliases", [None]),
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
