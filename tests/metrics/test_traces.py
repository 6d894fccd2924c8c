"""The attributes on OpenTelemetry's spans, with its real SDK and LiteLLM's own `otel` callback."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import litellm
import pytest
from litellm.integrations.opentelemetry import OpenTelemetry, OpenTelemetryConfig
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from litellm_budget_plugin import BudgetExceeded, BudgetStoreUnavailable
from litellm_budget_plugin.hooks.call import Call
from litellm_budget_plugin.pricing import Request
from tests.hooks.desk import CHAT, OTHER, WORTH, Desk
from tests.manager.faraway import Faraway
from tests.metrics.reading import until
from tests.upstream import Upstream

Open = Callable[..., Desk]
PREFIX = "litellm_budget."


class Traces:
    """A tracer like an application's, and the spans that it exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("tests")

    def named(self, name: str) -> ReadableSpan:
        return next(span for span in self.exporter.get_finished_spans() if span.name == name)

    def ours(self, name: str) -> dict[str, Any]:
        """Return this package's attributes on a span."""
        found = self.named(name).attributes or {}
        return {key.removeprefix(PREFIX): value for key, value in found.items() if key.startswith(PREFIX)}


@pytest.fixture
def traces() -> Iterator[Traces]:
    made = Traces()
    yield made
    made.provider.shutdown()


def _inside(traces: Traces, function: Callable[[], Any]) -> Any:
    with traces.tracer.start_as_current_span("work"):
        return function()


def test_a_call_writes_what_was_held_and_what_it_cost(traces: Traces, open_desk: Open) -> None:
    desk = open_desk(project="shop")
    _inside(traces, lambda: litellm.completion(**desk.arguments("alice", max_tokens=2000)))
    found = traces.ours("work")
    assert found.pop("hold").endswith("/1")
    assert found == {
        "project": "shop",
        "outcome": "granted",
        "reserved_usd": 2 * WORTH / 1e9,
        "cost_usd": WORTH / 1e9,
        "scope": "",
        "reason": "",
    }
    assert "alice" not in str(found)
    assert (traces.named("work").attributes or {})["gen_ai.usage.cost"] == WORTH / 1e9


def test_an_asynchronous_call_writes_the_same(traces: Traces, open_desk: Open) -> None:
    desk = open_desk()

    async def calls() -> None:
        async def call(name: str, model: str) -> None:
            with traces.tracer.start_as_current_span(name):
                await litellm.acompletion(**desk.arguments("alice", model=model))

        await asyncio.gather(call("chat", CHAT), call("other", OTHER))

    asyncio.run(calls())
    assert traces.ours("chat")["cost_usd"] == WORTH / 1e9
    assert traces.ours("other")["cost_usd"] == WORTH / 5 / 1e9


def test_a_refusal_says_why(traces: Traces, open_desk: Open, upstream: Upstream) -> None:
    desk = open_desk(default_limit="0.01")
    with pytest.raises(BudgetExceeded):
        _inside(traces, lambda: litellm.completion(**desk.arguments("alice")))
    found = traces.ours("work")
    assert (found["outcome"], found["scope"], found["reason"]) == ("refused", "user", "spent")
    assert found["reserved_usd"] == found["cost_usd"] == 0.0
    assert upstream.requests == 0


@pytest.mark.parametrize(
    ("settings", "model", "scope", "reason"),
    [
        ({"mode": "shadow", "default_limit": "0.01"}, CHAT, "user", "spent"),
        ({"on_unknown_price": "allow"}, "openai/nobody-knows-this", "model", "price"),
    ],
)
def test_what_goes_out_without_a_hold_says_why(
    traces: Traces, open_desk: Open, settings: dict[str, Any], model: str, scope: str, reason: str
) -> None:
    desk = open_desk(**settings)
    _inside(traces, lambda: litellm.completion(**desk.arguments("alice", model=model)))
    found = traces.ours("work")
    assert (found["outcome"], found["scope"], found["reason"]) == ("unheld", scope, reason)
    assert found["cost_usd"] == (WORTH / 1e9 if model == CHAT else 0.0)


def test_a_store_that_is_away_says_so(traces: Traces, open_far: Open, line: Faraway) -> None:
    line.away = True
    desk = open_far(on_store_error="reject")
    with pytest.raises(BudgetStoreUnavailable):
        _inside(traces, lambda: litellm.completion(**desk.arguments("alice")))
    assert (traces.ours("work")["outcome"], traces.ours("work")["reason"]) == ("refused", "unavailable")
    traces.exporter.clear()
    desk = open_far(on_store_error="allow")
    _inside(traces, lambda: litellm.completion(**desk.arguments("alice")))
    assert (traces.ours("work")["outcome"], traces.ours("work")["reason"]) == ("unheld", "unavailable")
    line.away = False


def test_a_dropped_stream_writes_its_cost_while_its_span_is_open(traces: Traces, open_desk: Open) -> None:
    """The call is settled on a thread without a current span. Its span is the one that was current when its money was held."""
    desk = open_desk()
    with traces.tracer.start_as_current_span("work") as span:
        stream = litellm.completion(**desk.arguments("alice", stream=True))
        next(stream)
        del stream
        with traces.tracer.start_as_current_span("another"):
            gc.collect()
            desk.calm("alice")
        until(lambda: PREFIX + "cost_usd" in (span.attributes or {}))  # type: ignore[attr-defined]
    assert traces.ours("work")["outcome"] == "granted"
    assert traces.ours("another") == {}


def test_a_span_that_has_ended_is_left_alone(traces: Traces, open_desk: Open, caplog: pytest.LogCaptureFixture) -> None:
    desk = open_desk()
    stream = _inside(traces, lambda: litellm.completion(**desk.arguments("alice", stream=True)))
    for _ in stream:
        pass
    assert desk.calm("alice") == WORTH
    assert "cost_usd" not in traces.ours("work") and traces.ours("work")["outcome"] == "granted"
    assert not [record for record in caplog.records if "ended span" in record.message]


def test_retries_show_the_last_attempt(traces: Traces, open_desk: Open, upstream: Upstream) -> None:
    desk = open_desk(default_limit="1")
    upstream.script["gate-chat"].extend([500])
    _inside(traces, lambda: litellm.completion(**desk.arguments("alice", num_retries=2)))
    assert traces.ours("work")["cost_usd"] == WORTH / 1e9
    assert desk.calm("alice") == WORTH


def test_a_failure_costs_nothing(traces: Traces, open_desk: Open, upstream: Upstream) -> None:
    desk = open_desk()
    upstream.script["gate-chat"].append(500)
    with pytest.raises(litellm.InternalServerError):
        _inside(traces, lambda: litellm.completion(**desk.arguments("alice")))
    assert traces.ours("work")["outcome"] == "granted" and traces.ours("work")["cost_usd"] == 0.0


def test_a_later_attempt_writes_on_the_span_of_its_call(traces: Traces, open_desk: Open) -> None:
    """LiteLLM may make the attempt on its own thread, where no span is current."""
    desk = open_desk()
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    request = Request("completion", CHAT, None, desk.arguments("alice"))
    call = Call(ledger, ledger.principal("alice"), request)
    with traces.tracer.start_as_current_span("work") as span:
        call.admit()
        call = call.sending({}, None)
        call.release()
        with traces.tracer.start_as_current_span("another"):
            call = call.sending({}, None)
        call.release()
        assert span.is_recording()
    assert traces.ours("work")["hold"].endswith("/2")
    assert traces.ours("another") == {}


def test_a_span_that_raises_harms_no_call(
    traces: Traces, open_desk: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(attributes: Any) -> None:
        raise ValueError("no such attribute")

    desk = open_desk()
    with traces.tracer.start_as_current_span("work") as span:
        monkeypatch.setattr(span, "set_attributes", fail)
        litellm.completion(**desk.arguments("alice"))
    assert desk.calm("alice") == WORTH
    assert any("a span could not be written to" in record.message for record in caplog.records)


def test_a_module_that_another_thread_is_importing_harms_no_call(
    open_desk: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desk = open_desk()
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", ModuleType("opentelemetry.trace"))
    litellm.completion(**desk.arguments("alice"))
    assert desk.calm("alice") == WORTH
    assert not [record for record in caplog.records if "a span" in record.message]


def test_a_tracer_that_raises_harms_no_call(
    open_desk: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("no context")

    desk = open_desk()
    with monkeypatch.context() as broken:
        broken.setattr("opentelemetry.trace.get_current_span", fail)
        litellm.completion(**desk.arguments("alice"))
    assert desk.calm("alice") == WORTH
    assert any("a span could not be found" in record.message for record in caplog.records)


@pytest.fixture
def otel(traces: Traces) -> OpenTelemetry:
    """LiteLLM's own callback, exporting to memory."""
    return OpenTelemetry(config=OpenTelemetryConfig(exporter=traces.exporter), tracer_provider=traces.provider)


def test_litellms_own_attributes_and_ours_are_on_one_span(traces: Traces, open_desk: Open, otel: OpenTelemetry) -> None:
    desk = open_desk()
    litellm.callbacks = [desk.callback, otel]

    async def call() -> None:
        with traces.tracer.start_as_current_span("work") as span:
            await litellm.acompletion(**desk.arguments("alice"))
            for _ in range(500):
                if "gen_ai.request.model" in (span.attributes or {}):  # type: ignore[attr-defined]
                    break
                await asyncio.sleep(0.01)

    asyncio.run(call())
    assert (traces.named("work").attributes or {})["gen_ai.request.model"]
    assert traces.ours("work")["cost_usd"] == WORTH / 1e9


def test_the_proxys_span_is_written_to_although_it_is_not_current(
    traces: Traces, open_desk: Open, otel: OpenTelemetry
) -> None:
    """The proxy passes its request's span in the metadata, and LiteLLM prefers that span to any other."""
    desk = open_desk()
    litellm.callbacks = [desk.callback, otel]
    span = traces.tracer.start_span("Received Proxy Server Request")
    metadata = {"litellm_parent_otel_span": span}
    with traces.tracer.start_as_current_span("another"):
        litellm.completion(**desk.arguments("alice", litellm_metadata=metadata))
    if span.is_recording():
        span.end()
    assert traces.ours("Received Proxy Server Request")["cost_usd"] == WORTH / 1e9
    assert traces.ours("another") == {}


def test_opentelemetry_is_not_imported_for_its_own_sake() -> None:
    program = (
        "import sys, litellm\n"
        "from litellm_budget_plugin import BudgetCallback\n"
        "litellm.callbacks = [BudgetCallback(store_url='memory://', default_limit=1)]\n"
        "call = dict(model='gpt-4o', messages=[{'role': 'user', 'content': 'x'}], user='a', mock_response='hi')\n"
        "before = 'opentelemetry' in sys.modules\n"
        "litellm.completion(**call, max_tokens=10)\n"
        "print(before, 'opentelemetry' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = done.stdout.split()[-2:]
    assert before == after
