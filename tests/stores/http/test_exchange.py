"""The requests on the wire, and the handling of every answer that an endpoint may give."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from litellm_budget_plugin.core import wire
from litellm_budget_plugin.core.commands import Reply, Settled
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.registry import masked, open_store, place_of
from tests.stores.desk import charge_of
from tests.stores.http.fake import HELLO, OURS, Said, running

Opener = Callable[..., Any]
SETTLED = Said(200, wire.dumps(Settled("h")).encode())


def test_a_command_is_one_request_with_the_key(opened: Opener) -> None:
    with running(SETTLED) as fake:
        store = opened(f"http://:s%40crt@{fake.base}/pre/fix?header=X-Team:a%20b&header=X-Other:1")
        assert store.execute(charge_of("h", now=5)) == Settled("h")
        hello, command = fake.asked
    assert (hello[0], hello[1]) == ("GET", "/pre/fix/v1")
    assert (command[0], command[1]) == ("POST", "/pre/fix/v1/command")
    assert command[2]["authorization"] == hello[2]["authorization"] == "Bearer s@crt"
    assert (command[2]["x-team"], command[2]["x-other"]) == ("a b", "1")
    assert command[2]["content-type"] == "application/json"
    # The command's own time is not sent.
    assert json.loads(command[3]) == wire.encode(charge_of("h"))


def test_many_commands_are_one_request(opened: Opener) -> None:
    said = {"outcomes": [wire.encode(Settled("h")), {"type": "BudgetInputError", "message": "no"}]}
    with running(Said(200, json.dumps(said).encode())) as fake:
        outcomes = opened(f"http://{fake.base}").execute_all([charge_of("h"), charge_of("g")])
        assert outcomes[0] == Settled("h")
        assert isinstance(outcomes[1], BudgetInputError)
        assert len(fake.asked) == 2


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_comes_back_is_asked_again(opened: Opener, status: int) -> None:
    with running(Said(status), SETTLED) as fake:
        assert opened(f"http://{fake.base}").execute(charge_of("h")) == Settled("h")
        assert len(fake.asked) == 3


@pytest.mark.parametrize(
    ("said", "kind", "match"),
    [
        (Said(500), BudgetStoreUnavailable, "answered 500"),
        (Said(503, b'{"message": "later"}'), BudgetStoreUnavailable, "answered 503: later"),
        (Said(429), BudgetStoreUnavailable, "answered 429"),
        (Said(408), BudgetStoreUnavailable, "answered 408"),
        (Said(422, b'{"message": "Settle.cost must be"}'), BudgetInputError, "^Settle.cost must be$"),
        (Said(422, b"", {}), BudgetStoreError, "answered 422"),
        (Said(401), BudgetStoreError, "LITELLM_BUDGET_API_KEY"),
        (Said(403, b'{"message": "this key is read-only"}'), BudgetStoreError, "read-only"),
        (Said(404), BudgetStoreError, "answered 404"),
        (Said(413), BudgetStoreError, "answered 413"),
        (Said(301, b"", {"Location": "https://else.where/x?secret=1"}), BudgetStoreError, "redirects to https://else.where/x; give"),
        (Said(200, b"<html>log in</html>"), BudgetStoreError, "not JSON"),
        (Said(200, b"[" * 100_000), BudgetStoreError, "not JSON"),
        (Said(200, b"[]"), BudgetStoreError, "did not answer with a reply"),
        (Said(200, b'{"type": "Read", "project": "p", "scope": "user"}'), BudgetStoreError, "did not answer with a reply"),
        (Said(200, b""), BudgetStoreError, "did not answer with a reply"),
    ],
)  # fmt: skip
def test_every_other_answer_says_what_to_do(opened: Opener, said: Said, kind: type[Exception], match: str) -> None:
    with running(said) as fake:
        store = opened(f"http://{fake.base}")
        with pytest.raises(kind, match=match) as raised:
            store.execute(charge_of("h"))
    temporary = isinstance(raised.value, BudgetStoreUnavailable)
    assert temporary == (kind is BudgetStoreUnavailable)
    assert "secret" not in str(raised.value)


def test_who_asks_too_often_waits_and_asks_again(opened: Opener) -> None:
    with running(Said(429, b"", {**OURS, "Retry-After": "0"}), SETTLED) as fake:
        assert opened(f"http://{fake.base}", timeout=10.0).execute(charge_of("h")) == Settled("h")
        fake.answers = [Said(429, b"", {**OURS, "Retry-After": "60"})]
        asked = len(fake.asked)
        with pytest.raises(BudgetStoreUnavailable, match="429"):
            opened(f"http://{fake.base}", timeout=1.0).execute(charge_of("h"))
        assert len(fake.asked) == asked + 2  # the version, and the command once


def dumps_all(replies: list[Reply]) -> bytes:
    """The body with the outcomes of many commands."""
    return json.dumps({"outcomes": [wire.encode(reply) for reply in replies]}).encode()


def test_many_commands_that_a_proxy_finds_too_large_go_in_halves(opened: Opener) -> None:
    """Each command is sent once, in order; a single command that is too large raises an error."""
    commands = [charge_of(f"h{number}") for number in range(5)]
    halves = [Said(200, dumps_all([Settled(f"h{number}") for number in some])) for some in ([0, 1], [2], [3, 4])]
    with running(Said(413), halves[0], Said(413), *halves[1:], Said(413)) as fake:
        store = opened(f"http://{fake.base}")
        assert store.execute_all(commands) == [Settled(f"h{number}") for number in range(5)]
        sent = [json.loads(body)["commands"] for _, path, _, body in fake.asked if path == "/v1/commands"]
        assert [[command["hold"] for command in some] for some in sent] == [
            ["h0", "h1", "h2", "h3", "h4"], ["h0", "h1"], ["h2", "h3", "h4"], ["h2"], ["h3", "h4"],
        ]  # fmt: skip
        with pytest.raises(BudgetStoreError, match="let the proxy in front of it take larger bodies"):
            store.execute_all(commands[:1])


@pytest.mark.parametrize("body", [b"{}", b'{"outcomes": []}', b'{"outcomes": [1]}', b"7"])
def test_outcomes_that_are_none(opened: Opener, body: bytes) -> None:
    with running(Said(200, body)) as fake, pytest.raises(BudgetStoreError, match="is another server in between"):
        opened(f"http://{fake.base}").execute_all([charge_of("h")])


def test_a_batch_that_is_refused_as_a_whole_is_no_commands_fault(opened: Opener) -> None:
    """Otherwise every charge in it would be given up as impossible to store."""
    with running(Said(422, b'{"message": "at most 1000 of them"}')) as fake:
        store = opened(f"http://{fake.base}")
        with pytest.raises(BudgetStoreError, match="refuses a batch: at most 1000 of them") as raised:
            store.execute_all([charge_of("h1"), charge_of("h2")])
        assert not isinstance(raised.value, BudgetStoreUnavailable)


def test_pages_that_are_none(opened: Opener) -> None:
    with running(Said(200, b'{"rows": {"accounts": [[1]], "holds": [], "usage": []}, "after": null}')) as fake:
        store = opened(f"http://{fake.base}")
        for ask in (store.projects, lambda: store.export("p", "", 10)):
            with pytest.raises(BudgetStoreError, match="is another server in between"):
                ask()


def test_another_version_is_refused() -> None:
    with (
        running(hello=Said(200, HELLO, {**OURS, "LiteLLM-Budget-Protocol": "1"})) as fake,
        pytest.raises(BudgetStoreError, match="speaks version 1 .* update the older one"),
    ):
        open_store(f"http://{fake.base}")


def test_a_server_that_keeps_its_own_time_is_no_store_for_tests() -> None:
    with running() as fake, pytest.raises(BudgetInputError, match="was not started with a test clock"):
        open_store(f"http://{fake.base}", test_clock=True)


def test_what_tells_an_endpoint_from_others_has_no_secret() -> None:
    url = "https://:key@host/prefix?header=X-Secret:one&connections=3"
    assert place_of(url) == "https://host/prefix?connections=3"
    assert masked(url) == "https://***@host/prefix?header=***&connections=***"
