"""The pages are the same for every engine of the ledger."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.server.dashboard.desk import PROJECT, USD, Tab, charge, put, state_of, text_of
from tests.server.running import running
from tests.stores.engines import ENGINES


# An endpoint does not serve another endpoint, because it could not read that one's keys.
@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"http"}))
def test_every_engine_can_be_looked_at(engine: str, tmp_path: Path) -> None:
    with running(ENGINES[engine](tmp_path), open_access=True) as server:
        store = server.site.ledger.store
        for number in range(1200):
            put(store, f"user-{number:04}", (number + 1) * USD)
        charge(store, "user-0007", 7 * USD, "h1")
        charge(store, "user-0100", 1 * USD, "h2", "o3")
        tab = Tab(server.url)
        until = time.monotonic() + 30
        while "Spent in 30 days $8.00 2 calls" not in (text := text_of(tab.page("/", project=PROJECT))):
            assert time.monotonic() < until, text
        assert "Users 1,200 1 near or at the limit" in text
        assert "1,200 users" in (listing := text_of(tab.page("/subjects", project=PROJECT)))
        assert listing.index("user-0007 near 87 % of $8.00") < listing.index("user-0100")
        page = tab.page("/subject", project=PROJECT, id="user-0100")
        assert "o3 $1.00 1 120 0" in text_of(page)
        assert tab.send(page, "/subject/limit", limit="$2 per month").status_code == 303
        assert tab.send(page, "/subject/raise", by="$2", until="2090-01-01T00:00").status_code == 303
        assert "25 % of $4.00 is used" in text_of(tab.page("/subject", project=PROJECT, id="user-0100"))
        assert (
            tab.send(tab.page("/subject/reset", project=PROJECT, id="user-0100"), "/subject/reset").status_code == 303
        )
        assert state_of(store, "user-0100").spent == 0
        assert len(tab.http.get(f"/export.json?project={PROJECT}").json()) == 1200
