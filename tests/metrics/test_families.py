"""The families in a scrape: bounded, parseable, registered once, all documented and on the dashboard."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import litellm
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from litellm_budget_plugin import metrics
from litellm_budget_plugin.core.commands import Settle
from litellm_budget_plugin.metrics import families, process
from litellm_budget_plugin.metrics.server import ServerMetrics
from litellm_budget_plugin.settings import BudgetSettings
from tests.hooks.desk import WORTH, Desk
from tests.metrics.reading import PREFIX, Shown

Open = Callable[..., Desk]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "watch-with-prometheus.md"
DASHBOARD = ROOT / "deploy" / "grafana" / "litellm-budget.json"


def _families(registry: CollectorRegistry) -> dict[str, str]:
    """Return every family's type by the name that queries use."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        if family.name.startswith(PREFIX) and not family.name.endswith("_created"):
            found[family.name + ("_total" if family.type == "counter" else "")] = family.type
    return found


def test_a_thousand_models_and_projects_are_a_hundred_and_other(registry: CollectorRegistry, shown: Shown) -> None:
    told = process.ProcessMetrics.in_registry(registry)
    for number in range(1000):
        told.charged(Settle(f"h{number}", f"project-{number}", (), (), 1, f"model-{number}"))
        told.refused(f"project-{number}", "user", "spent", "enforce")
        told.reserved(f"project-{number}", "store", 0.001)
    spend = shown.all()[PREFIX + "spend_usd_total"]
    assert len({labels["model"] for labels, _ in spend}) == families.MOST_NAMES + 1
    assert len({labels["project"] for labels, _ in spend}) == families.MOST_NAMES + 1
    assert shown.nanos("spend_usd_total", model="other") == shown.nanos("spend_usd_total", project="other") == 900
    assert shown.nanos("spend_usd_total") == 1000
    assert len(shown.all()[PREFIX + "refusals_total"]) == families.MOST_NAMES + 1
    assert shown("refusals_total", project="other") == 900
    # A known name stays known.
    told.charged(Settle("late", "project-5", (), (), 1, "model-5"))
    assert shown.nanos("spend_usd_total", model="model-5", project="project-5") == 2


def test_a_thousand_models_of_real_calls(open_desk: Open, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "MOST_NAMES", 3)
    monkeypatch.setattr(families.Names.__init__, "__defaults__", (3,))
    desk = open_desk(on_unknown_price="allow", store_url="memory://")
    for number in range(10):
        litellm.completion(**desk.arguments("alice", model=f"openai/m-{number}", mock_response="hi"))
    desk.calm("alice")
    assert {labels["model"] for labels, _ in shown.all()[PREFIX + "spend_usd_total"]} <= {"m-0", "m-1", "m-2", "other"}
    assert len(shown.all()[PREFIX + "spend_usd_total"]) == 4


def test_both_formats_can_be_parsed(open_desk: Open, registry: CollectorRegistry) -> None:
    desk = open_desk(project='a "project" of \\ ours')
    litellm.completion(**desk.arguments("alice"))
    desk.calm("alice")
    assert _families(registry) == {
        PREFIX + "spend_usd_total": "counter",
        PREFIX + "refusals_total": "counter",
        PREFIX + "reserve_seconds": "histogram",
        PREFIX + "store_errors_total": "counter",
        PREFIX + "expired_holds_total": "counter",
        PREFIX + "held_usd": "gauge",
        PREFIX + "open_holds": "gauge",
        PREFIX + "waiting_charges": "gauge",
        PREFIX + "breaker_open": "gauge",
        PREFIX + "runs_out_timestamp_seconds": "gauge",
    }
    parsed = list(parse_openmetrics(generate_openmetrics(registry).decode()))
    assert len(parsed) == len(_families(registry))
    assert all(family.documentation for family in parsed)


def test_a_server_shows_the_same_families_but_two() -> None:
    shown = _families(ServerMetrics()._registry)
    assert set(_families(process.ProcessMetrics.in_registry(CollectorRegistry()).registry)) - set(shown) == {
        PREFIX + "waiting_charges",
        PREFIX + "breaker_open",
    }


def test_nothing_is_registered_twice(open_desk: Open, registry: CollectorRegistry, shown: Shown) -> None:
    first, second = open_desk(), open_desk(project="another")
    litellm.completion(**second.arguments("alice"))
    first.callback.close()
    second.callback.close()
    third = open_desk()
    litellm.completion(**third.arguments("alice"))
    assert shown.nanos("spend_usd_total", project="default") == third.calm("alice") == WORTH
    assert shown.nanos("spend_usd_total", project="another") == WORTH


def test_a_module_that_is_loaded_anew_finds_what_it_made(registry: CollectorRegistry) -> None:
    before = process.ProcessMetrics.in_registry(registry)
    try:
        again = importlib.reload(process)
        assert again.ProcessMetrics.in_registry(registry) is before
    finally:
        importlib.reload(process)


def test_a_registry_is_chosen_for_what_is_opened_later(open_desk: Open, registry: CollectorRegistry) -> None:
    desk = open_desk()
    other = CollectorRegistry()
    metrics.use_registry(other)
    second = open_desk(project="another")
    litellm.completion(**second.arguments("alice"))
    assert second.calm("alice") == Shown(other).nanos("spend_usd_total") == WORTH
    assert Shown(registry)("spend_usd_total") == 0
    litellm.callbacks = [desk.callback]
    litellm.completion(**desk.arguments("alice"))
    assert desk.calm("alice") == Shown(registry).nanos("spend_usd_total") == WORTH
    assert Shown(other).nanos("spend_usd_total") == WORTH


def test_the_page_lists_every_family_with_its_labels(registry: CollectorRegistry) -> None:
    told = process.ProcessMetrics.in_registry(registry)
    rows = re.findall(r"(?m)^\| `(\w+)` \| (.*?) \|", PAGE.read_text("utf-8"))
    documented = {PREFIX + name: re.findall(r"`(\w+)`", labels) for name, labels in rows}
    made = {}
    for collector in vars(registry)["_collector_to_names"]:
        if hasattr(collector, "_labelnames"):
            total = "_total" if collector._type == "counter" else ""
            made[collector._name + total] = list(collector._labelnames)
    assert told is not None and documented == made
    assert str(families.MOST_NAMES) in PAGE.read_text("utf-8")


def _queried(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["expr"]] if "expr" in value else []
        return own + [found for inner in value.values() for found in _queried(inner)]
    return [found for inner in value for found in _queried(inner)] if isinstance(value, list) else []


def test_the_dashboard_shows_every_family_and_nothing_else(registry: CollectorRegistry) -> None:
    process.ProcessMetrics.in_registry(registry)
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    asked = {name for expr in _queried(dashboard) for name in re.findall(rf"{PREFIX}\w+", expr)}
    shown = _families(registry)
    assert {name.removesuffix("_bucket") for name in asked} == set(shown)
    assert {name for name in asked if name.endswith("_bucket")} == {PREFIX + "reserve_seconds_bucket"}
    variables = json.dumps(dashboard["templating"])
    assert set(re.findall(rf"{PREFIX}\w+", variables)) == {PREFIX + "reserve_seconds_count"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24 and panel["title"] and panel["targets"]
    # The labels in the panels' queries exist.
    labels = {
        label
        for expr in _queried(dashboard)
        for group in re.findall(r"by \((.*?)\)", expr)
        for label in group.split(", ")
    }
    known = {"le"}.union(
        *(set(c._labelnames) for c in vars(registry)["_collector_to_names"] if hasattr(c, "_labelnames"))
    )
    assert labels <= known


def test_the_alert_asks_for_what_exists(registry: CollectorRegistry) -> None:
    process.ProcessMetrics.in_registry(registry)
    rule = PAGE.read_text("utf-8").split("```yaml")[1].split("```")[0]
    asked = set(re.findall(rf"{PREFIX}\w+", rule))
    assert asked and asked <= set(_families(registry))


def test_a_name_that_somebody_else_has_stops_no_ledger(
    open_desk: Open, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Then no family is shown, and the registry can still be read."""
    Counter(PREFIX + "store_errors", "Somebody else's.", registry=registry)
    desk = open_desk()
    litellm.completion(**desk.arguments("alice"))
    assert desk.calm("alice") == WORTH
    assert set(_families(registry)) == {PREFIX + "store_errors_total"}
    assert any("metrics cannot be shown" in record.message for record in caplog.records)


def test_a_directory_that_is_not_there_stops_no_ledger() -> None:
    program = (
        "from litellm_budget_plugin import BudgetSettings\n"
        "from litellm_budget_plugin.manager.ledger import BudgetLedger\n"
        "from prometheus_client import REGISTRY, generate_latest\n"
        "ledger = BudgetLedger(BudgetSettings(store_url='memory://'))\n"
        "ledger.close()\n"
        "print(ledger.observing.any, b'litellm_budget' in generate_latest(REGISTRY))\n"
    )
    assert _run(program, PROMETHEUS_MULTIPROC_DIR="no/such/directory") == "False False"


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("prometheus_client", "opentelemetry"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import litellm
from litellm_budget_plugin import BudgetCallback, BudgetExceeded
litellm.callbacks = [BudgetCallback(store_url="memory://", default_limit="0.006")]
call = dict(model="gpt-4o", messages=[{"role": "user", "content": "x"}], user="a", mock_response="hi")
litellm.completion(**call, max_tokens=10)
try:
    litellm.completion(**call, max_tokens=1000)
except BudgetExceeded:
    print("refused", litellm.callbacks[0].manager.get_current_cost("a") > 0)
"""


def _run(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return done.stdout.splitlines()[-1]


def test_everything_works_without_prometheus_client() -> None:
    assert _run(WITHOUT) == "refused True"


def test_nothing_imports_prometheus_client_before_it_is_wanted() -> None:
    program = (
        "import sys, litellm_budget_plugin.settings, litellm_budget_plugin.stores.registry, litellm_budget_plugin.cli\n"
        "import litellm_budget_plugin.core.ledger, litellm_budget_plugin.manager.ledger\n"
        "from litellm_budget_plugin.settings import BudgetSettings\n"
        "from litellm_budget_plugin.manager.ledger import BudgetLedger\n"
        "BudgetLedger(BudgetSettings(store_url='memory://', metrics=False)).close()\n"
        "print('prometheus_client' in sys.modules)\n"
    )
    assert _run(program) == "False"


def test_a_forked_child_goes_on(open_desk: Open, shown: Shown) -> None:
    """Other threads change metrics all the time during the fork, and none of their locks stays locked in the child."""
    from tests.metrics.forking import forked_while_updating

    assert forked_while_updating(20) == [0] * 20


def test_the_setting_is_on_by_default() -> None:
    assert BudgetSettings(store_url="memory://").metrics is True
