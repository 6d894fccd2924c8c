"""The documentation is correct: its examples run, its tables are complete, its links have targets."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path

import pytest

import litellm_budget_plugin
from litellm_budget_plugin import BudgetSettings, errors
from tests.pages import ROOT, failure
from tests.pages import blocks as _blocks
from tests.pages import name as _name
from tests.pages import python_blocks as _python
from tests.warm import in_processes

DOCS = ROOT / "docs"
PACKAGE = ROOT / "litellm_budget_plugin"
README = ROOT / "README.md"
REFERENCE = DOCS / "reference.md"
GUARANTEES = DOCS / "guarantees.md"
STORE_FAILS = DOCS / "how-to" / "when-the-store-fails.md"
FRAMEWORKS = DOCS / "use-with"

PAGES = sorted([README, ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])


def _prose(path: Path) -> str:
    """Return the page without its blocks."""
    return re.sub(r"(?ms)^\s*```.*?^\s*```\s*$", "", path.read_text("utf-8"))


@pytest.mark.parametrize("page", [page for page in PAGES if _python(page) and page.parent != FRAMEWORKS], ids=_name)
def test_the_examples_run(page: Path, tmp_path: Path) -> None:
    """They run from top to bottom in one namespace, in an empty directory; tests/conftest.py keeps LiteLLM off the network."""
    assert in_processes(1, failure, _name(page), _python(page), tmp_path) == [""]


@pytest.mark.parametrize("page", sorted(FRAMEWORKS.glob("*.md")), ids=_name)
def test_the_examples_with_frameworks_compile(page: Path) -> None:
    """`python -m tests.frameworks` runs them in an environment with the framework."""
    assert _blocks(page)
    for block in _python(page):
        compile("\n" * (block.line - 1) + block.text, _name(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_block_has_a_language(page: Path) -> None:
    assert [block.line for block in _blocks(page) if not block.language] == []


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ +(.*?) *$", _prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


_OURS = re.compile(
    r"https://(?:raw\.githubusercontent\.com/litellm-budget-plugin/litellm-budget-plugin/main"
    r"|github\.com/litellm-budget-plugin/litellm-budget-plugin/(?:blob|tree)/main)/"
)
"""The URLs by which pages name files of the repository where a relative link would not work: the README on PyPI, the site."""


def _links(page: Path) -> list[str]:
    text = re.sub(r"`[^`\n]*`", "", _prose(page))
    links = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text)
    ours = [_OURS.sub(f"{os.path.relpath(ROOT, page.parent)}/", link) for link in links]
    return [link for link in ours if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_links_lead_somewhere(page: Path) -> None:
    for link in _links(page):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{_name(page)}: {link}"
        if anchor:
            assert anchor in _anchors(target), f"{_name(page)}: {link}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [README]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        files = [(page.parent / link.partition("#")[0]).resolve() for link in _links(page) if not link.startswith("#")]
        waiting += [file for file in files if file.suffix == ".md" and file.exists()]
    assert set(PAGES) - reached == set()


def _rows(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the tables under a heading, without the tables' heads."""
    text = page.read_text("utf-8")
    section = re.search(rf"(?ms)^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text)
    assert section, f"{_name(page)} has no section {heading!r}"
    lines = [line for line in section[1].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    heads = {number - 1 for number, row in enumerate(rows) if set("".join(row)) <= set("-: ")}
    return [row for number, row in enumerate(rows) if number not in heads and number - 1 not in heads]


def _code(cell: str) -> str:
    found = re.findall(r"`([^`]+)`", cell)
    return found[0] if found else cell


def _default(name: str) -> str:
    default = BudgetSettings.model_fields[name].default
    if name == "store_url":
        return "sqlite:///litellm_budget.db"
    if name == "journal":
        return "litellm_budget_journal"
    if name in ("api_base", "api_key", "file") or (name.startswith("alert_") and default is None):
        return "no default"
    if default in (None, ""):
        return "no limit"
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_the_reference_lists_every_setting_with_its_default() -> None:
    rows = _rows(REFERENCE, "Settings")
    documented = {_code(row[0]): _code(row[2]) for row in rows}
    assert len(documented) == len(rows)
    assert documented == {name.upper(): _default(name) for name in BudgetSettings.model_fields}


def test_the_settings_are_described() -> None:
    for row in _rows(REFERENCE, "Settings"):
        assert all(row), row
    for name, field in BudgetSettings.model_fields.items():
        assert field.description, name


def test_the_reference_names_every_accepted_word() -> None:
    """The row of a setting that is a choice holds all its words."""
    rows = {_code(row[0]).lower(): row[1] for row in _rows(REFERENCE, "Settings")}
    for name, field in BudgetSettings.model_fields.items():
        for word in getattr(field.annotation, "__args__", ()):
            if isinstance(word, str):
                assert f"`{word}`" in rows[name], (name, word)


def test_the_links_of_the_readme_work_on_pypi() -> None:
    assert not [link for link in re.findall(r"\]\(([^)\s]+)\)", _prose(README)) if "://" not in link]


def test_no_page_names_a_setting_that_does_not_exist() -> None:
    known = {name.upper() for name in BudgetSettings.model_fields}
    for page in PAGES:
        named = set(re.findall(r"(?<!_)LITELLM_BUDGET_([A-Z_]+[A-Z])", page.read_text("utf-8")))
        assert named <= known, _name(page)


def _error_classes() -> dict[str, type[BaseException]]:
    found = dict(inspect.getmembers(errors, inspect.isclass))
    found["BudgetExceeded"] = litellm_budget_plugin.BudgetExceeded
    return {name: kind for name, kind in found.items() if issubclass(kind, errors.BudgetError)}


def test_the_reference_lists_every_error_with_its_status() -> None:
    documented = {_code(row[0]): _code(row[1]) for row in _rows(REFERENCE, "Errors") if _code(row[0])[:1].isupper()}
    assert documented == {name: str(getattr(kind, "status_code", "none")) for name, kind in _error_classes().items()}


def test_the_reference_lists_every_field_of_a_refusal() -> None:
    """The fields are those that the docstring of BudgetExceeded names."""
    documented = {_code(row[0]) for row in _rows(REFERENCE, "Errors")}
    own = re.findall(r"`(\w+)`", litellm_budget_plugin.BudgetExceeded.__doc__ or "")
    assert len(own) > 8
    assert set(own) <= documented


@pytest.mark.parametrize("name", litellm_budget_plugin.__all__)
def test_the_reference_names_every_public_name(name: str) -> None:
    assert re.search(rf"`{name}\b", REFERENCE.read_text("utf-8"))


def test_the_reference_shows_every_public_method() -> None:
    text = REFERENCE.read_text("utf-8")
    for kind in (litellm_budget_plugin.BudgetCallback, litellm_budget_plugin.BudgetManager):
        for name in vars(kind):
            if not name.startswith("_") and name != "budget_ledger":
                assert re.search(rf"`{name}\b", text), f"{kind.__name__}.{name}"


def _source_texts() -> str:
    """Return the package's source, with string literals on several lines joined."""
    source = "\n".join(path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py")))
    return re.sub(r"""["']\s*\n\s*f?["']""", "", source)


@pytest.mark.parametrize(
    ("page", "heading", "column"),
    [(REFERENCE, "Log lines", 1), (STORE_FAILS, "What it says", 0)],
    ids=["log lines", "store failures"],
)
def test_messages_are_quoted_as_they_are(page: Path, heading: str, column: int) -> None:
    """The sign "…" stands for the variable part."""
    source = _source_texts()
    rows = _rows(page, heading)
    assert rows
    for row in rows:
        for part in _code(row[column]).split("…"):
            assert part.strip() in source, f"{_name(page)}: {part.strip()}"


def test_the_guarantees_give_a_reason_for_every_patch_point() -> None:
    from litellm_budget_plugin.hooks.instrument import PATCH_POINTS

    rows = _rows(GUARANTEES, "What is relied on in LiteLLM")
    assert [_code(row[0]) for row in rows] == [point.path for point in PATCH_POINTS]
    assert all(len(row[1].split()) > 4 for row in rows)


def test_the_guarantees_name_the_lowest_litellm() -> None:
    lowest = re.search(r'"litellm>=([\d.]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert lowest
    assert lowest[1] in GUARANTEES.read_text("utf-8")


def test_the_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) < 100


@pytest.mark.parametrize("page", sorted((DOCS / "how-to").glob("*.md")), ids=_name)
def test_the_how_to_pages_are_short(page: Path) -> None:
    assert len(page.read_text("utf-8").splitlines()) < 60


def test_the_two_commands_are_one_line_each() -> None:
    text = README.read_text("utf-8")
    commands = [block.text for block in _blocks(README) if block.language == "sh"]
    assert [len(command.splitlines()) for command in commands] == [1] * len(commands)
    after = dict(re.findall(r"(?m)^(.*):\n\n```sh\n(.*)\n```$", text))
    [works] = [command for said, command in after.items() if "examples/quickstart.py" in command]
    [tests] = [command for said, command in after.items() if "pytest" in command]
    assert after["Run the tests"] == tests
    assert works != tests
