"""The functions that docs/surface.md lists beside the measured ways: those that are not gated, and those without an estimate."""

from __future__ import annotations

import re

from litellm_budget_plugin.hooks.call_types import FREE
from tests.surface.facts import END, PAGE

LISTED = "<!-- listed: python -m tests.surface -->"


def free_table() -> str:
    """Return one row for each module and reason of FREE. An asynchronous twin is listed by its synchronous function."""
    rows: dict[tuple[str, str], list[str]] = {}
    for key, reason in FREE.items():
        module, _, name = key.partition(":")
        # LiteLLM names the asynchronous twin with an "a" in front.
        if f"{module}:{name[1:]}" not in FREE:
            rows.setdefault((module, reason), []).append(name)
    lines = ["| module of `litellm` | functions | why they cost nothing |", "|---|---|---|"]
    for (module, reason), names in rows.items():
        lines.append(f"| `{module}` | {', '.join(f'`{name}`' for name in names)} | {reason} |")
    return "\n".join(lines)


def page_table() -> str:
    """Return the table of free functions that the page has now."""
    text = PAGE.read_text("utf-8")
    at = text.index(LISTED) + len(LISTED)
    return text[at : text.index(END, at)].strip()


def unestimated_on_page() -> set[str]:
    """Return the functions that the page lists as held for with UNBOUNDED_HOLD, as "module:function" below `litellm`."""
    text = PAGE.read_text("utf-8")
    at = text.index("## Functions without an estimate")
    rows = re.findall(r"(?m)^\| `([\w.]+)` \| (.*) \|$", text[at : text.index("\n## ", at + 1)])
    return {f"{module}:{name}" for module, names in rows for name in re.findall(r"`(\w+)`", names)}
