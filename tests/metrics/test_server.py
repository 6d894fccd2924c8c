"""The metrics of the commands that a server answers, with one worker and with several."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import Command, Granted, Refused, Release, Renew, Reply, Reserve, Settle, Sweep
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.metrics.families import MOST_NAMES
from litellm_budget_plugin.metrics.server import ServerMetrics
from litellm_budget_plugin.stores.memory import MemoryStore
from litellm_budget_plugin.stores.protocol import ask
from tests.metrics.reading import PREFIX, samples

ALICE = (Subject("user", "alice"),)
LIMIT = (Default("user", "none", 1000),)
TTL = 60_000_000


class Server:
    """A store with the metrics of a server."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.metrics = ServerMetrics()

    def answer(self, command: Command) -> Reply:
        reply = ask(self.store, command)
        self.metrics.observe_reply(command, reply, 0.001)
        return reply

    def reserve(self, hold: str, usd: int, patient: bool = False, ttl: int = TTL, **more: str) -> Reply:
        want = Amounts(usd, 1, 0)
        return self.answer(Reserve(hold, "p", ALICE, ("m",), want, ttl, LIMIT, patient=patient, **more))  # type: ignore[arg-type]

    def settle(self, hold: str, cost: int, **more: str) -> Reply:
        return self.answer(Settle(hold, "p", ALICE, ("m",), cost, "m", defaults=LIMIT, **more))  # type: ignore[arg-type]

    def shown(self, name: str, **labels: str) -> float:
        text = self.metrics.exposition()[0].decode()
        found = samples(text).get(PREFIX + name, [])
        return sum(value for given, value in found if labels.items() <= given.items())

    def held(self) -> int:
        return round(self.shown("held_usd", project="p") * 1e9)


@pytest.fixture
def server() -> Server:
    return Server()


def test_spend_and_holds_follow_the_replies(server: Server) -> None:
    server.reserve("a", 400)
    server.reserve("b", 300)
    assert server.held() == 700 and server.shown("open_holds") == 2
    server.settle("a", 100)
    server.answer(Release("b", "p"))
    assert server.held() == server.shown("open_holds") == 0
    assert round(server.shown("spend_usd_total", project="p", model="m") * 1e9) == 100
    assert server.shown("reserve_seconds_count") == 2 and server.shown("reserve_seconds_sum") == pytest.approx(0.002)


def test_a_command_that_is_sent_again_counts_once(server: Server) -> None:
    server.reserve("slice", 500)
    for _ in range(3):
        server.settle("call", 200, parent="slice")
    assert round(server.shown("spend_usd_total") * 1e9) == 200
    assert server.held() == 300
    server.answer(Release("slice", "p"))
    assert server.held() == 0


def test_a_replaced_hold_holds_nothing_more(server: Server) -> None:
    server.reserve("a", 400)
    assert isinstance(server.reserve("b", 300, replaces="a"), Granted)
    assert server.held() == 300


def test_a_patient_refusal_is_asked_again(server: Server) -> None:
    server.reserve("a", 900)
    assert isinstance(server.reserve("b", 500, patient=True), Refused)
    assert server.shown("refusals_total") == 0
    assert isinstance(server.reserve("b", 500), Refused)
    assert server.shown("refusals_total", scope="user", reason="held") == server.shown("refusals_total") == 1
    server.settle("a", 900)
    assert isinstance(server.reserve("c", 500, patient=True), Refused)
    assert server.shown("refusals_total", reason="spent") == 1


def test_expired_holds_are_held_no_longer(server: Server) -> None:
    server.reserve("a", 100, ttl=1)
    assert server.held() == 0
    server.reserve("b", 100)
    server.store.execute(Release("b", "p"))
    server.answer(Renew(("b", "never"), "p", TTL))
    assert server.held() == 0 and server.shown("expired_holds_total", seen_by="renewal") == 1
    server.reserve("c", 100, ttl=1)
    server.answer(Sweep("p", 10**12, 10**13))
    # The hold is forgotten before the metrics are read.
    assert not server.metrics._holds._open  # type: ignore[union-attr]
    assert server.shown("expired_holds_total", seen_by="sweep") >= 1


def test_a_renewed_hold_is_held_on(server: Server) -> None:
    server.reserve("a", 100, ttl=1_000_000)
    server.answer(Renew(("a",), "p", TTL))
    server.metrics._holds._open["a"].until -= 2  # type: ignore[union-attr]
    assert server.held() == 100


def test_errors_have_one_of_two_kinds(server: Server) -> None:
    server.metrics.observe_error("unavailable")
    server.metrics.observe_error("error")
    assert (
        server.shown("store_errors_total", kind="unavailable") == server.shown("store_errors_total", kind="error") == 1
    )
    with pytest.raises(BudgetInputError, match="unavailable, error"):
        server.metrics.observe_error("alice")  # type: ignore[arg-type]


def test_the_scraper_chooses_the_format(server: Server) -> None:
    server.reserve("a", 100)
    text, kind = server.metrics.exposition("text/plain")
    assert kind.startswith("text/plain") and b"# EOF" not in text
    text, kind = server.metrics.exposition("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text") and text.endswith(b"# EOF\n")


def test_two_servers_in_one_process(server: Server) -> None:
    other = Server()
    server.settle("a", 100)
    assert other.shown("spend_usd_total") == 0


WORKER = """
from tests.metrics.test_server import Server
server = Server()
server.reserve("a", 400)
server.settle("a", 100)
assert server.metrics._holds is None, "no worker can follow what others end"
print(server.metrics.exposition()[0].decode())
"""


def test_several_workers_answer_for_all(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    texts = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", WORKER],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        texts.append(done.stdout)
    found = samples(texts[-1])
    assert sum(value for _, value in found[PREFIX + "spend_usd_total"]) == pytest.approx(300e-9)
    assert sum(value for _, value in found[PREFIX + "reserve_seconds_count"]) == 3
    assert PREFIX + "held_usd" not in found


def test_a_thousand_scopes_of_a_client_s_own_are_few_series() -> None:
    """Clients choose the text of a scope, so the number of scopes must be bounded."""
    server = Server()
    for number in range(300):
        subject, limit = Subject(f"scope-{number}", "alice"), Default(f"scope-{number}", "none", 1)
        reply = server.answer(Reserve(f"h{number}", "p", (subject,), ("m",), Amounts(2, 1, 0), TTL, (limit,)))
        assert isinstance(reply, Refused)
    refusals = samples(server.metrics.exposition()[0].decode())[PREFIX + "refusals_total"]
    assert len(refusals) == MOST_NAMES + 1 and sum(value for _, value in refusals) == 300
