"""An agent with a budget for its run, and sub-agents with smaller budgets. One that loops is stopped, and the others continue.

    python examples/agent_run.py

With OPENAI_API_KEY set it calls OpenAI (about one US cent); without, it calls its own server on loopback.
"""

from __future__ import annotations

import asyncio
import os
import tempfile

from provider import LocalProvider

if "OPENAI_API_KEY" not in os.environ:
    os.environ.update(OPENAI_API_KEY="none", OPENAI_API_BASE=LocalProvider().url, LITELLM_LOCAL_MODEL_COST_MAP="True")

import litellm  # it reads the environment when it is imported

from litellm_budget_plugin import BudgetCallback, BudgetExceeded, budget_context, budget_run


async def think(task: str) -> str:
    """Make one step of an agent."""
    messages = [{"role": "user", "content": task}]
    answer = await litellm.acompletion(model="gpt-4o", messages=messages, max_tokens=100)
    return str(answer.choices[0].message.content)


async def sub_agent(name: str, steps: int) -> str:
    """Work on a part of the task, with a budget of its own in addition to that of the run."""
    with budget_run("$0.005", id=f"report-1/{name}") as run:
        try:
            for step in range(steps):
                await think(f"{name}, step {step}")
        except BudgetExceeded as refused:
            return f"{name}: stopped after {step} steps and ${run.spent}, by its {refused.scope}'s budget of {refused.budget}"
        return f"{name}: done after {steps} steps and ${run.spent}"


async def report() -> None:
    """Run the agent: it plans, runs its sub-agents at the same time, and sums up."""
    with budget_context(user="alice"), budget_run("$0.05", id="report-1") as run:
        await think("Plan the report.")
        for outcome in await asyncio.gather(sub_agent("search", 3), sub_agent("draw", 3), sub_agent("loop", 1000)):
            print(outcome)
        await think("Sum up.")
        print(f"the run: ${run.spent} spent, ${run.remaining} left")


def main() -> None:
    """Register the callback, run the agent, and show every run of the ledger."""
    with tempfile.TemporaryDirectory() as folder:
        budgets = BudgetCallback(store_url=f"sqlite:///{folder}/budgets.db", user_limits="$10/month")
        litellm.callbacks = [budgets]
        asyncio.run(report())
        for run in budgets.manager.runs():
            print(f"  {run.id:18} ${run.spent} of {', '.join(run.limits)}")
        budgets.close()


if __name__ == "__main__":
    main()
