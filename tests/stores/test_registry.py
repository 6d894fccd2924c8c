"""Opening a store by its URL."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import masked, open_store, place_of
from tests.stores.desk import calls_of, charge_of

Opener = Callable[..., Store]


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("redis://user:secret@host/db", "has 'db' for its database"),
        ("redis://secret@host", "a user without a password"),
        ("redis://:secret@one,two", "several hosts"),
        ("redis://:secret@host:port", "has the host 'host:port'"),
        ("redis://", "names no host"),
        ("redis://:secret@host?pool=3", "has the parameter 'pool'"),
        ("redis://:secret@host?connections=0", "has '0' for its connections"),
        ("redis://:secret@host?prefix={a}", "has a prefix"),
        ("redis://:secret@host?ssl_ca_certs=x", "has the parameter 'ssl_ca_certs'"),
        ("rediss://:secret@host?ssl_cert_reqs=maybe", "neither required nor none"),
        ("redis+unix://:secret@host/path", "names no socket"),
        ("redis+cluster://:secret@host/1", "a cluster has none"),
        ("redis+sentinel://:secret@host:26379", "names no master"),
        ("postgresql://user:secret@[host/db", "libpq cannot read this URL"),
        ("postgresql://user:secret@host/db?sslmod=x", "libpq cannot read this URL"),
        ("postgresql://user:secret@host,other/db?port=1,2,3", "as many ports as hosts"),
        ("postgres://user:secret@host/db?schema=A-b", "a schema's name is"),
        ("postgres://user:secret@host/db?pool_size=0", "pool_size must be from 1 to 999"),
        ("postgres://user:secret@host/db?prepare=maybe", "prepare must be yes or no"),
        ("https://:secret@host?pool=3", "?pool= is not accepted"),
        ("https://:secret@host?connections=0", "?connections= is not accepted"),
        ("http://:secret@host?ca=x", "?ca= is not accepted"),
        ("https://:secret@host?header=b ad:secret", "must be Name:Value"),
        ("https://:secret@host?ca=/no/such/file", "cannot be used"),
        ("https://:secret@", "must be https://host"),
        ("https://:secret@a..b", "is not a valid URL"),
        ("https://:secret@" + "a" * 64 + ".example", "is not a valid URL"),
        ("https://:secret@host:port", "is not a valid URL"),
        ("https://:secret/more@host", "is not a valid URL"),
        ("https://:secret\u2100@host", "is not a valid URL"),
        ("sqlit:///x.db", "did you mean sqlite://?"),
        ("sqlite+aiosqlite:///x.db", "did you mean sqlite://?"),
        ("sqlite:/x.db", "is not the URL of a store"),
        ("ledger.db", "is not the URL of a store"),
        ("", "is not the URL of a store"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite://x.db", "write sqlite:///x.db"),
        ("sqlite://host/x.db", "a file has no host"),
        ("sqlite://:memory:", "write memory://"),
        ("sqlite:///:memory:", "write memory://"),
        ("sqlite:///x.db?mode=ro", "no parameters"),
        ("sqlite:///x\0.db", "NUL"),
        ("memory://name", "takes no name"),
        ("mongo://secret@host", "no store is called mongo://"),
    ],
)
def test_urls_that_name_no_store(url: str, hint: str) -> None:
    """Each error says what is wrong and shows no secret."""
    with pytest.raises(BudgetInputError) as raised:
        open_store(url)
    assert hint in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "2"])
def test_timeouts_that_mean_nothing(timeout: float) -> None:
    with pytest.raises(BudgetInputError, match="timeout"):
        open_store("memory://", timeout=timeout)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@host:6379/0", "redis://***@host:6379/0"),
        ("redis://user:se@cr/et@host/0", "redis://***@host/0"),
        ("postgresql://host/db?password=secret&sslmode=require", "postgresql://host/db?password=***&sslmode=***"),
        ("https://token@host/path", "https://***@host/path"),
        ("redis://host/0", "redis://host/0"),
        ("redis://a://secret@host", "redis://***@host"),
        ("sqlite:////srv/a@b.db", "sqlite:////srv/a@b.db"),
    ],
)
def test_secrets_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    ("url", "same"),
    [
        (
            "postgresql://me:old@host/db?schema=a&sslmode=require",
            "postgresql://me:new@host/db?sslmode=require&schema=a",
        ),
        ("redis://:old@host/0?prefix=a", "redis://:new@host/0?prefix=a"),
        ("postgresql://host/db?password=old&schema=a", "postgresql://host/db?password=new&schema=a"),
    ],
)
def test_a_new_password_names_the_same_ledger(url: str, same: str) -> None:
    assert place_of(url) == place_of(same)
    assert "old" not in place_of(url)


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("postgresql://host/db?schema=a", "postgresql://host/db?schema=b"),
        ("postgresql://me@/db?host=/a", "postgresql://me@/db?host=/b"),
        ("redis://host/0?prefix=a", "redis://host/0?prefix=b"),
        ("redis://host/0", "redis://host/1"),
        ("sqlite:////a.db", "sqlite:////b.db"),
    ],
)
def test_two_ledgers_are_told_apart(url: str, other: str) -> None:
    """Charges that wait for one ledger must not be delivered to the other."""
    assert place_of(url) != place_of(other)


def test_a_relative_path_is_made_absolute_once(
    tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, because people look for the file where they started the process."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with caplog.at_level(logging.INFO, logger="litellm_budget_plugin"):
        store = opened("sqlite:///ledger.db")
        monkeypatch.chdir(tmp_path / "elsewhere")
        store.execute(charge_of("h"))
    assert [record.getMessage() for record in caplog.records] == [f"the budget ledger is {tmp_path}/ledger.db"]
    assert not os.listdir(tmp_path / "elsewhere")
    assert calls_of(opened(f"sqlite:///{tmp_path}/ledger.db")) == 1


def test_each_memory_is_a_ledger_of_its_own(opened: Opener) -> None:
    store, other = opened("memory://"), opened("MEMORY://")
    store.execute(charge_of("h"))
    assert (calls_of(store), calls_of(other)) == (1, 0)


def test_a_closed_store_refuses(engine_url: str) -> None:
    """Closing twice is allowed."""
    store = open_store(engine_url)
    store.execute(charge_of("h"))
    store.close()
    store.close()
    store.sync()
    with pytest.raises(BudgetStoreError, match="closed"):
        store.execute(charge_of("h"))


def test_a_store_satisfies_the_protocol(engine_url: str, opened: Opener) -> None:
    assert isinstance(opened(engine_url), Store)


def test_opening_imports_neither_litellm_nor_other_engines() -> None:
    """LiteLLM takes seconds to import."""
    code = (
        "import sys; from litellm_budget_plugin.stores.registry import open_store; open_store('memory://'); "
        "print([name for name in ('litellm', 'sqlite3') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(("url", "engine"), [("redis://host", "redis"), ("postgresql://host/db", "postgres")])
def test_a_client_that_is_not_installed(url: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"litellm_budget_plugin.stores.{engine}.engine", None)
    with pytest.raises(BudgetInputError, match=rf"pip install 'litellm-budget-plugin\[{engine}\]'"):
        open_store(url)
