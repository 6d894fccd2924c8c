"""A batch job over threads: documents of several customers, each charged to its customer and to the batch's own budget.

    python examples/batch_over_threads.py

With OPENAI_API_KEY set it calls OpenAI (about two US cents); without, it calls its own server on loopback.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from provider import LocalProvider

if "OPENAI_API_KEY" not in os.environ:
    os.environ.update(OPENAI_API_KEY="none", OPENAI_API_BASE=LocalProvider().url, LITELLM_LOCAL_MODEL_COST_MAP="True")

import litellm  # it reads the environment when it is imported

from litellm_budget_plugin import BudgetCallback, BudgetExceeded, budget_context

CUSTOMERS = ("acme", "globex")
IN_FLIGHT = "no room beside the calls in flight"


class Document(NamedTuple):
    """A text to sum up, and the customer who pays."""

    customer: str
    text: str


def sum_up(document: Document) -> str:
    """Sum up one document, and return the outcome. A customer with no budget left does not stop other customers' documents."""
    messages = [{"role": "user", "content": f"Sum up: {document.text}"}]
    try:
        # Named in the thread that makes the call, because a block around the executor would not reach it.
        with budget_context(user=document.customer):
            litellm.completion(model="gpt-4o", messages=messages, max_tokens=100)
    except BudgetExceeded as refused:
        if refused.reason == "held":
            return IN_FLIGHT
        return f"left out: {refused.scope} {refused.subject} has no room in {refused.budget}"
    return "done"


def main() -> None:
    """Register the callback, process the documents, and show what each customer has left."""
    documents = [Document(customer, f"document {number}") for number in range(12) for customer in CUSTOMERS]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(8) as pool:
        budgets = BudgetCallback(store_url=f"sqlite:///{folder}/budgets.db", user_limits="$1/day")
        litellm.callbacks = [budgets]
        budgets.manager.set_limits("globex", "$0.004/day")
        budgets.manager.set_limits("tag:nightly", "$0.50/day")
        with budget_context(tags=["nightly"]):
            # `carry` takes the tag into the threads.
            outcomes = dict(zip(documents, pool.map(budget_context.carry(sum_up), documents)))
            # The calls in flight have ended, and the money that they held but did not spend is free again.
            for document in [document for document, outcome in outcomes.items() if outcome == IN_FLIGHT]:
                outcomes[document] = sum_up(document)
        for customer in CUSTOMERS:
            theirs = Counter(outcome for document, outcome in outcomes.items() if document.customer == customer)
            left = budgets.manager.remaining(customer)
            print(f"{customer}: ${left.usd} of {left.budget} left")
            for outcome, count in theirs.most_common():
                print(f"  {count:2} {outcome}")
        print(f"the batch: ${budgets.manager.remaining('tag:nightly').usd} of $0.50 left")
        budgets.close()


if __name__ == "__main__":
    main()
