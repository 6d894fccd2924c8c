"""Three users with different budgets call a model at the same time. The script shows which calls are refused, and the spend.

    python examples/quickstart.py

With OPENAI_API_KEY set it calls OpenAI (about one US cent); without, it calls its own server on loopback. The
application is in application.py, and has no code for budgets.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter

from provider import LocalProvider

provider = None
if "OPENAI_API_KEY" not in os.environ:
    provider = LocalProvider()
    os.environ.update(OPENAI_API_KEY="none", OPENAI_API_BASE=provider.url, LITELLM_LOCAL_MODEL_COST_MAP="True")

import litellm  # noqa: E402  # it reads the environment when it is imported
from application import ask_many  # noqa: E402  # an application imports it by name, before there is any budget

from litellm_budget_plugin import BudgetCallback, BudgetExceeded  # noqa: E402

BUDGETS = {"alice": 0.05, "bob": 0.004, "carol": 0.0}
ROUNDS, CALLS = 2, 6


async def run() -> None:
    """Let every user ask CALLS questions at once, ROUNDS times."""
    for number in range(1, ROUNDS + 1):
        questions = [f"What is the answer, number {n}?" for n in range(CALLS)]
        answers = await asyncio.gather(*[ask_many(user, questions) for user in BUDGETS])
        print(f"Round {number}: {CALLS} calls at once by each of {', '.join(BUDGETS)}")
        for user, theirs in zip(BUDGETS, answers):
            served = sum(not isinstance(answer, BaseException) for answer in theirs)
            print(f"  {user:6} {served} served, {len(theirs) - served} refused")
            reasons = Counter(str(answer) for answer in theirs if isinstance(answer, BaseException))
            for reason, count in reasons.most_common(1):
                print(f"         {count} x {reason}")
            assert all(isinstance(answer, (str, BudgetExceeded)) for answer in theirs), theirs


def main() -> None:
    """Register the callback, run the application, and show the ledger."""
    with tempfile.TemporaryDirectory() as folder:
        budgets = BudgetCallback(store_url=f"sqlite:///{folder}/budgets.db", default_limit=0)
        litellm.callbacks = [budgets]  # the only change to the application

        for user, limit in BUDGETS.items():
            budgets.manager.create_budget(limit, user)
        asyncio.run(run())
        budgets.flush()

        print("The ledger afterwards")
        for user in BUDGETS:
            spent, limit = budgets.manager.get_current_cost(user), budgets.manager.get_total_budget(user)
            print(f"  {user:6} spent ${spent:.5f} of ${limit:.5f}")
            assert spent <= limit
        if provider is not None:
            print(f"The provider received {provider.requests} of {ROUNDS * CALLS * len(BUDGETS)} requests.")
        budgets.close()


if __name__ == "__main__":
    main()
