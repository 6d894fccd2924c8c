"""The measured facts, stored in results.json, and the tables of docs/frameworks.md that are generated from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.frameworks.framework import CALL, HELPER, LOST, STREAM, UNCOVERED
from tests.frameworks.measure import framework
from tests.pages import ROOT

RESULTS = Path(__file__).with_name("results.json")
TABLE = ROOT / "docs" / "frameworks.md"
BEGIN, END = "<!-- begin: python -m tests.frameworks --table -->", "<!-- end -->"
NAMES = (
    "langchain",
    "llamaindex",
    "openai_agents",
    "google_adk",
    "dspy",
    "crewai",
    "instructor",
    "smolagents",
    "pydantic_ai",
    "browser_use",
    "open_webui",
    "fastapi",
    "celery",
    "streamlit",
)


_COLUMNS = (
    "framework",
    "the user is named by",
    "refused before a request leaves",
    "a refusal arrives as",
    "`refusal_in`",
    "after",
    "attempts",
    "streams",
    "keep the user",
    "lose the user",
    "not covered",
)


def names() -> list[str]:
    """Return the frameworks that have a module here."""
    return [name for name in NAMES if Path(__file__).with_name(f"{name}.py").exists()]


def page(name: str) -> Path:
    """Return the page about the use of a framework."""
    return ROOT / "docs" / "use-with" / f"{name.replace('_', '-')}.md"


def results() -> dict[str, Any]:
    """Return the measured facts by framework."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def keep(results: dict[str, Any]) -> None:
    """Write results.json."""
    RESULTS.write_text(json.dumps({name: results[name] for name in NAMES if name in results}, indent=1) + "\n")


def _sees(way: dict[str, Any]) -> str:
    return f"`{way['sees']}`" if way["refusal_in"] is not None else str(way["sees"])


def _seconds(ways: list[dict[str, Any]]) -> str:
    least, most = min(way["seconds"] for way in ways), max(way["seconds"] for way in ways)
    return f"{most:.2g} s" if f"{least:.1g}" == f"{most:.1g}" else f"{least:.1g} to {most:.2g} s"


def _attempts(ways: list[dict[str, Any]]) -> str:
    more = [f"{way['attempts']} by {way['way']}" for way in ways if way["attempts"] > 1]
    return "; ".join((["1"] if len(more) < len(ways) else []) + more)


def _streams(ways: list[dict[str, Any]]) -> str:
    if not ways:
        return "none tried"
    going_on = [way["way"] for way in ways if not way["stops"]]
    told = f"; when dropped, read to the end by {'; '.join(going_on)}" if going_on else ", also when dropped"
    return f"charged{told}"


def _listed(ways: list[dict[str, Any]]) -> str:
    return "; ".join(way["way"] for way in ways) or "-"


def _row(name: str, facts: dict[str, Any]) -> str:
    """Return the row of a framework. Its statements about refusals are about the ways that are held for."""
    declared = framework(name)
    kinds: dict[str, list[dict[str, Any]]] = {}
    for way in facts["ways"]:
        kinds.setdefault(way["kind"], []).append(way)
    alone = kinds.get(CALL, []) + kinds.get(STREAM, [])
    held = alone + kinds.get(HELPER, [])
    found = {way["refusal_in"] for way in held} - {None}
    cells = [
        f"[{declared.title}](use-with/{page(name).name}) {facts['versions'][declared.shown[0]]}",
        declared.named,
        "yes" if not any(way["sent"] for way in held) else "no",
        "; ".join(dict.fromkeys(map(_sees, held))),
        {frozenset({True}): "finds it", frozenset(): "-"}.get(frozenset(found), "not always"),
        _seconds(alone),
        _attempts(alone),
        _streams(kinds.get(STREAM, [])),
        _listed(kinds.get(HELPER, [])),
        _listed(kinds.get(LOST, [])),
        _listed(kinds.get(UNCOVERED, [])),
    ]
    return "| " + " | ".join(cells) + " |"


def _details(name: str, facts: dict[str, Any]) -> list[str]:
    title = framework(name).title
    rows = []
    for way in facts["ways"]:
        if way["kind"] == UNCOVERED:
            cells = ["**not covered**: goes out, and is not charged", "-", "-", "-"]
        else:
            kept = "**lost**: `anonymous` pays" if way["kind"] == LOST else "pays"
            found = {True: "finds it", False: "None", None: "-"}[way["refusal_in"]]
            cells = [kept, _sees(way), found, f"{way['attempts']} in {way['seconds']:g} s"]
            if way["kind"] == LOST:
                cells[1:] = ["no refusal", "-", "-"]
        rows.append("| " + " | ".join([title, way["way"], *cells]) + " |")
    return rows


def text(results: dict[str, Any]) -> str:
    """Return the generated part of the page."""
    known = [(name, results[name]) for name in NAMES if name in results]
    lines = [
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'---|' * len(_COLUMNS)}",
        *[_row(name, facts) for name, facts in known],
        "",
        "## Every way that was tried",
        "",
        "| framework | way | the user | a refusal arrives as | `refusal_in` | attempts |",
        "|---|---|---|---|---|---|",
        *[row for name, facts in known for row in _details(name, facts)],
        "",
        "## Versions",
        "",
        "| framework | versions | measured |",
        "|---|---|---|",
    ]
    for name, facts in known:
        versions = ", ".join(f"{shown} {number}" for shown, number in facts["versions"].items())
        lines.append(f"| {framework(name).title} | {versions}, Python {facts['python']} | {facts['date']} |")
    return "\n".join(lines)


def parts() -> tuple[str, str, str]:
    """Return the page before, inside and after the generated part."""
    before, begin, rest = TABLE.read_text("utf-8").partition(BEGIN)
    inside, end, after = rest.partition(END)
    assert begin and end, f"{TABLE} has no {BEGIN} and {END}"
    return before, inside.strip("\n"), after


def write(results: dict[str, Any]) -> None:
    """Write the generated part of the page."""
    before, _, after = parts()
    TABLE.write_text(f"{before}{BEGIN}\n{text(results)}\n{END}{after}", "utf-8")
