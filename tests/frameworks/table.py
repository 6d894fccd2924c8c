"""What was measured, kept in results.json, and the tables of docs/frameworks.md that are made of it."""

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


def names() -> list[str]:
    """The frameworks that have a module here."""
    return [name for name in NAMES if Path(__file__).with_name(f"{name}.py").exists()]


def page(name: str) -> Path:
    """The page that says how a framework is used."""
    return ROOT / "docs" / "use-with" / f"{name.replace('_', '-')}.md"


def results() -> dict[str, Any]:
    """What was measured, by framework."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def keep(results: dict[str, Any]) -> None:
    """Write results.json."""
    RESULTS.write_text(json.dumps({name: results[name] for name in NAMES if name in results}, indent=1) + "\n")


def _each(ways: list[dict[str, Any]], key: str) -> list[Any]:
    return list(dict.fromkeys(way[key] for way in ways))


def _sees(way: dict[str, Any]) -> str:
    return f"`{way['sees']}`" if way["refusal_in"] is not None else str(way["sees"])


def _most(numbers: list[float], unit: str = "") -> str:
    least, most = min(numbers), max(numbers)
    return f"{most:g}{unit}" if least == most else f"{least:g} to {most:g}{unit}"


def _streams(ways: list[dict[str, Any]]) -> str:
    if not ways:
        return "none tried"
    stopped = [way["way"] for way in ways if way["stops"]]
    dropped = "charged when it is dropped" if stopped else "goes on when it is dropped"
    if stopped and len(stopped) < len(ways):
        dropped += ", except: " + ", ".join(way["way"] for way in ways if not way["stops"])
    return f"charged; {dropped}"


def _row(name: str, facts: dict[str, Any]) -> str:
    """The row of a framework: of the ways that are held for."""
    declared = framework(name)
    kinds: dict[str, list[dict[str, Any]]] = {}
    for way in facts["ways"]:
        kinds.setdefault(way["kind"], []).append(way)
    held = [way for kind in (CALL, STREAM, HELPER) for way in kinds.get(kind, [])]
    found = {way["refusal_in"] for way in held} - {None}
    cells = [
        f"[{declared.title}](use-with/{page(name).name}) {facts['versions'][declared.shown[0]]}",
        declared.named,
        "yes" if not any(way["sent"] for way in held) else "no",
        ", ".join(dict.fromkeys(map(_sees, held))),
        {frozenset({True}): "finds it", frozenset(): "-"}.get(frozenset(found), "not always"),
        _most([way["seconds"] for way in held], " s"),
        _most(_each(held, "attempts")),
        _streams(kinds.get(STREAM, [])),
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
    """The generated part of the page."""
    known = [(name, results[name]) for name in NAMES if name in results]
    lines = [
        "| framework | the user is named by | refused before a request leaves | a refusal arrives as | `refusal_in` | after | attempts | streams |",
        "|---|---|---|---|---|---|---|---|",
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
    """The page before, inside and after the generated part."""
    before, begin, rest = TABLE.read_text("utf-8").partition(BEGIN)
    inside, end, after = rest.partition(END)
    assert begin and end, f"{TABLE} has no {BEGIN} and {END}"
    return before, inside.strip("\n"), after


def write(results: dict[str, Any]) -> None:
    """Write the generated part of the page."""
    before, _, after = parts()
    TABLE.write_text(f"{before}{BEGIN}\n{text(results)}\n{END}{after}", "utf-8")
