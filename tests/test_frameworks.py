"""docs/frameworks.md shows the measured results, for every framework that is measured."""

from __future__ import annotations

import pytest

from tests.frameworks import table
from tests.frameworks.measure import framework

NAMES = table.names()


def test_the_tables_are_made_of_the_results() -> None:
    """`python -m tests.frameworks --table` writes them."""
    assert table.parts()[1] == table.text(table.results())


def test_every_framework_was_measured() -> None:
    assert len(NAMES) == 14
    assert sorted(table.results()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_framework_has_a_short_page(name: str) -> None:
    text = table.page(name).read_text("utf-8")
    assert text.startswith("# Use with ")
    assert len(text.splitlines()) < 50
    assert "budget_context" in text or "X-OpenWebUI-User-Email" in text


@pytest.mark.parametrize("name", NAMES)
def test_what_was_measured_is_shown(name: str) -> None:
    facts = table.results()[name]
    assert set(framework(name).shown) <= set(facts["versions"])
    held = [way for way in facts["ways"] if way["kind"] in ("call", "stream", "helper")]
    assert held and not any(way["sent"] for way in held)
