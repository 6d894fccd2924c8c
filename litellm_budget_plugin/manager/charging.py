"""Charges made by hand, through the manager: their cost by LiteLLM's own functions, and their settlement."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from litellm_budget_plugin import pricing
from litellm_budget_plugin.core.commands import AlreadyCharged, Settle
from litellm_budget_plugin.core.litellm_record import UNASSIGNED
from litellm_budget_plugin.core.money import charge_nanos
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.marks import response_marks
from litellm_budget_plugin.pricing.usage import read_usage

_logger = logging.getLogger("litellm_budget_plugin")


class Charge(NamedTuple):
    """A charge. `cost` is in US dollars; `response` is the response that the callback may already have charged."""

    cost: float
    model: str
    input_tokens: int = 0
    output_tokens: int = 0
    response: Any = None


def charge_for_texts(model: str, input_text: str, output_text: str) -> Charge:
    """Return the charge for an answer of which only the texts are known. Raises LiteLLM's errors for unknown prices."""
    import litellm

    read = litellm.token_counter(model=model, messages=[{"role": "user", "content": input_text}])
    wrote = litellm.token_counter(model=model, messages=[{"role": "user", "content": output_text}])
    cost = sum(litellm.cost_per_token(model=model, prompt_tokens=read, completion_tokens=wrote))
    return Charge(cost, model, read, wrote)


def charge_for_response(response: Any) -> Charge:
    """Return the charge for a response. Raises LiteLLM's errors for unknown prices."""
    import litellm

    cost = litellm.completion_cost(completion_response=response)
    model = response["model"]
    usage = read_usage(response)
    label = model if isinstance(model, str) and model else UNASSIGNED
    return Charge(cost, label, usage.input if usage else 0, usage.output if usage else 0, response)


def settle(ledger: BudgetLedger, user: str, charge: Charge) -> bool:
    """Charge a user unless the callback has charged them for this response. Returns whether it was charged.

    Settle waiting charges before you call this: the call that produced the response may be among them. If the ledger does not
    answer, the charge is delivered later, once.
    """
    principal = ledger.principal(user)
    marks = response_marks(user, charge.response)
    command = Settle(
        hold=new_id(),
        project=ledger.project,
        subjects=principal.subjects,
        models=pricing.model_names(pricing.Request("completion", charge.model, None, {})),
        cost=charge_nanos(charge.cost),
        model=charge.model,
        input_tokens=charge.input_tokens,
        output_tokens=charge.output_tokens,
        defaults=principal.defaults,
        unless=marks[0] if marks else None,
    )
    try:
        return not isinstance(ledger.ask(command), AlreadyCharged)
    except BudgetStoreUnavailable as error:
        # The ledger may have charged it. A caller that got an error would try again and charge it twice.
        _logger.error("a charge waits for the store and will be delivered later: %s", error)
        ledger.worker.deliver_later(command)
        return True
