"""Checks of LiteLLM: whether the gate holds on the installed version, and whether its prices fit the models in use."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date, datetime, timezone
from typing import Any, NamedTuple

from litellm_budget_plugin.cli.doctor.finding import Finding, failed, ok, printable, warning
from litellm_budget_plugin.core.accounts import ESTIMATED, Usage
from litellm_budget_plugin.core.commands import ReadUsage
from litellm_budget_plugin.core.money import usd_text
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError, IncompatibleLiteLLMError
from litellm_budget_plugin.hooks.versions import TESTED, litellm_version, untested
from litellm_budget_plugin.stores.protocol import Store, ask

DAYS = 30
"""The number of days of usage that are checked."""
_SHOWN = 5
_PRICE = "give each a price: docs/how-to/give-a-model-a-price.md"


def check_version() -> Finding:
    """Check whether the installed LiteLLM is among the tested versions."""
    installed = litellm_version()
    said = untested(installed)
    if said:
        return warning("LiteLLM", said, f"install one from {TESTED[0]} to {TESTED[-1]}, or rely on the lines below")
    return ok("LiteLLM", f"{installed}; {TESTED[0]} to {TESTED[-1]} were tested")


def check_gate() -> Iterator[Finding]:
    """Check by mock calls on a ledger in memory whether the installed LiteLLM's calls are refused and charged."""
    try:
        from litellm_budget_plugin.hooks.selfcheck import rehearse
    except ImportError as error:
        advice = f"pip install 'litellm>={TESTED[0]}'"
        yield failed("gate", f"LiteLLM cannot be imported: {printable(str(error))}", advice)
        return
    try:
        for kind, blocks, settles in rehearse():
            wrong = [
                *([] if blocks else ["one over budget was not refused"]),
                *([] if settles else ["one was not charged"]),
            ]
            if wrong:
                advice = f"budgets do not hold for such calls: install LiteLLM {TESTED[-1]}, and report this"
                yield failed("gate", f"{kind}: {', '.join(wrong)}", advice)
            else:
                yield ok("gate", f"{kind}: a call over budget is refused, one within it is charged")
    except IncompatibleLiteLLMError as error:
        yield failed("gate", str(error), f"install LiteLLM {TESTED[-1]}")


class Recent(NamedTuple):
    """Usage of the last DAYS days: the project's totals by model, and the estimated part (None if the store does not know it)."""

    models: dict[str, Usage]
    estimated: Usage | None

    @property
    def total(self) -> Usage:
        """The sum of all models."""
        return _sum(self.models.values())


def recent(store: Store, project: str) -> Recent:
    """Return the recent usage. Raises BudgetError."""
    since = time.time_ns() // 1000 // DAY - DAYS + 1
    models: dict[str, Usage] = {}
    for key, usage in ask(store, ReadUsage(project, "project", project, since=since)).rows:
        models[key.model] = models.get(key.model, Usage()).plus(usage)
    try:
        estimated = _sum(usage for _, usage in ask(store, ReadUsage(project, ESTIMATED, project, since=since)).rows)
    except BudgetInputError:
        return Recent(models, None)
    return Recent(models, estimated)


def check_estimated(found: Recent) -> Finding:
    """Check how much of the spend was estimated, and how many expired holds were charged their input side."""
    total = found.total
    if found.estimated is None:
        return ok("estimates", "not recorded: the endpoint does not report them")
    share = found.estimated.spent / total.spent if total.spent > 0 else 0.0
    said = f"${usd_text(found.estimated.spent)} of ${usd_text(total.spent)} of the last {DAYS} days ({share:.1%}) was estimated, not reported"
    if total.unsettled:
        said += f"; {total.unsettled} holds expired and were charged their input side"
    if share > 0.05:
        return warning(
            "estimates",
            said,
            "docs/guarantees.md lists answers without usage; STREAM_USAGE requests usage for streams",
        )
    return ok("estimates", said)


def check_prices(found: Recent) -> Iterator[Finding]:
    """Check which of the models in use have no price, or perhaps an outdated one, in a fresh process of this installation."""
    try:
        import litellm
    except ImportError:  # check_gate reports this
        return
    yield _source(litellm)
    if not found.models:
        yield ok("prices", f"no model was used in the last {DAYS} days")
        return
    unknown: list[str] = []
    own: list[str] = []
    over: list[str] = []
    today = datetime.now(timezone.utc).date()
    for model, usage in sorted(found.models.items()):
        entry = _entry(litellm, model)
        if entry is None:
            (own if usage.spent else unknown).append(model)
        elif (ends := _date(entry.get("deprecation_date"))) is not None and ends < today:
            over.append(f"{model} ({ends})")
    if unknown:
        yield warning("prices", f"LiteLLM has no price for {_listed(unknown)}: their calls cost nothing", _PRICE)
    if over:
        advice = "providers may have retired or re-priced them: upgrade LiteLLM, and use their successors"
        yield warning("prices", f"these are past their deprecation date in LiteLLM: {_listed(over)}", advice)
    if own:
        yield ok("prices", f"charged at prices that the application sets, which cannot be seen here: {_listed(own)}")
    known = len(found.models) - len(unknown) - len(own)
    yield ok("prices", f"LiteLLM has prices for {known} of {len(found.models)} models used in the last {DAYS} days")


def _source(litellm: Any) -> Finding:
    try:
        from litellm.litellm_core_utils.get_model_cost_map import get_model_cost_map_source_info

        info = get_model_cost_map_source_info()
        source, forced, reason = info["source"], info["is_env_forced"], info["fallback_reason"]
    except (ImportError, KeyError, TypeError):
        return ok(
            "price map", f"{len(litellm.model_cost):,} models; this LiteLLM does not report the source of its prices"
        )
    if source != "local":
        return ok("price map", f"{len(litellm.model_cost):,} models, fetched just now")
    said = f"{len(litellm.model_cost):,} models, from the copy in LiteLLM {litellm_version()}: as old as that version"
    if forced:
        return ok("price map", f"{said} (LITELLM_LOCAL_MODEL_COST_MAP)")
    return warning("price map", f"{said} ({printable(str(reason))})", "let LiteLLM fetch its prices, or upgrade it")


def _entry(litellm: Any, model: str) -> dict[str, Any] | None:
    """Return LiteLLM's entry for a model, by the model name in answers; None if there is no entry with a price."""
    found = litellm.model_cost.get(model)
    if found is None:
        try:
            found = litellm.model_cost.get(litellm.get_model_info(model)["key"])
        except Exception:  # noqa: BLE001  # LiteLLM raises plain Exceptions for names that it does not know
            return None
    if not isinstance(found, dict) or not any("cost" in name for name in found):
        return None
    return found


def _date(value: object) -> date | None:
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        return None


def _sum(usages: Any) -> Usage:
    total = Usage()
    for usage in usages:
        total = total.plus(usage)
    return total


def _listed(names: list[str]) -> str:
    shown = ", ".join(printable(name, 80) or "''" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
