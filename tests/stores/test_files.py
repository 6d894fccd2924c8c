"""Files that cannot be used: each is refused with its name and the remedy, and nothing is changed."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import Accounts, Read, Settled
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import open_store
from litellm_budget_plugin.stores.sqlite import files
from tests.stores.desk import calls_of, charge_of, hold_of
from tests.stores.processes import Child

Opener = Callable[..., Store]
NOBODY = 65534


def refusal(path: Path) -> str:
    """The error of opening. It must name the file, and must not advise to ask again."""
    with pytest.raises(BudgetStoreError) as raised:
        open_store(f"sqlite:///{path}")
    assert not isinstance(raised.value, BudgetStoreUnavailable)
    assert str(path) in str(raised.value)
    return str(raised.value)


def test_a_missing_directory(tmp_path: Path) -> None:
    assert "does not exist; create it" in refusal(tmp_path / "missing" / "ledger.db")
    assert not (tmp_path / "missing").exists()


def test_a_directory(tmp_path: Path) -> None:
    assert "is a directory" in refusal(tmp_path)


def test_something_else_than_a_database(database: Path) -> None:
    database.write_text("user,cost\n" * 1000)
    assert "not a SQLite database" in refusal(database)
    assert database.read_text() == "user,cost\n" * 1000


def test_a_damaged_database(database: Path, opened: Opener) -> None:
    """The header is intact, the tables are not."""
    store = open_store(f"sqlite:///{database}")
    store.execute(charge_of("h"))
    store.close()
    content = database.read_bytes()
    database.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    store = opened(f"sqlite:///{database}")
    with pytest.raises(BudgetStoreError, match=f"{database}: it is damaged"):
        store.execute(charge_of("h"))


@pytest.mark.parametrize("made_by", ["CREATE TABLE users (id)", "PRAGMA application_id = 7", "PRAGMA user_version = 3"])
def test_another_applications_database(database: Path, made_by: str) -> None:
    connection = sqlite3.connect(database)
    connection.execute(made_by)
    connection.commit()
    connection.close()
    before = database.read_bytes()
    assert "another application" in refusal(database)
    assert database.read_bytes() == before


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory that every user can access; pytest's directories are not."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def as_nobody(path: Path) -> str:
    """The error for a user without rights who opens the file and charges."""

    def charge(parent: Child) -> None:
        if os.getuid() == 0:
            os.setuid(NOBODY)
        open_store(f"sqlite:///{path}").execute(charge_of("nobody"))

    return Child(charge).result()


def test_a_directory_that_may_not_be_written(public_directory: Path) -> None:
    public_directory.chmod(0o555)
    said = as_nobody(public_directory / "ledger.db")
    assert said.startswith(f"BudgetStoreError: {public_directory}/ledger.db cannot be created (Permission denied)")


@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_a_file_that_may_not_be_written(public_directory: Path, mode: int, opened: Opener) -> None:
    path = public_directory / "ledger.db"
    store = open_store(f"sqlite:///{path}")
    store.execute(charge_of("h"))
    store.close()
    path.chmod(mode)
    public_directory.chmod(0o777)
    said = as_nobody(path)
    assert said.startswith(f"BudgetStoreError: {path}: ") and "write access" in said
    path.chmod(0o600)
    assert calls_of(opened(f"sqlite:///{path}")) == 1


def test_the_file_is_its_owners_alone(database: Path, opened: Opener) -> None:
    """With any umask, because the file shows who spends what. A mode that an operator has set stays."""
    before = os.umask(0)
    try:
        store = opened(f"sqlite:///{database}")
        store.execute(charge_of("h"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in database.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db-shm": 0o600}
    store.close()
    database.chmod(0o660)
    opened(f"sqlite:///{database}").execute(charge_of("h2"))
    assert stat.S_IMODE((database.parent / "ledger.db-wal").stat().st_mode) == 0o660


def charge_until_refused(store: Store) -> tuple[int, BudgetStoreError]:
    """The number of charges that fitted, and the error of the next one."""
    for number in range(10_000):
        try:
            store.execute(charge_of(f"{'h' * 200}{number}"))
        except BudgetStoreError as error:
            return number, error
    raise AssertionError("the disk is never full")


def test_a_full_disk(database: Path, opened: Opener) -> None:
    """Nothing of the refused command is kept, and the store works again once there is room."""
    store = opened(f"sqlite:///{database}")
    store.execute(charge_of("first"))
    connection = store._connection  # type: ignore[attr-defined]
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 5}")
    made, error = charge_until_refused(store)
    assert f"{database}: its disk (or quota) is full; make room" in str(error)
    assert calls_of(store) == made + 1
    connection.execute("PRAGMA max_page_count = 1000000")
    store.execute(charge_of("last"))
    assert calls_of(store) == made + 2


def test_a_file_size_limit(database: Path, opened: Opener) -> None:
    """`ulimit -f` stops a write in the middle."""

    def charge(parent: Child) -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        store = open_store(f"sqlite:///{database}")
        made, error = charge_until_refused(store)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        store.execute(charge_of("last"))
        return f"{made + 1} {error}"

    said = Child(charge).result()
    assert f"{database}: its disk failed or the file size limit was reached" in said
    assert calls_of(opened(f"sqlite:///{database}")) == int(said.split()[0])


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("what", ["ledger.db", "ledger.db-wal"])
def test_a_file_that_disappears(database: Path, what: str, replaced: bool) -> None:
    """Charges to a deleted file would be lost to all other processes; a new file in its place would begin at zero."""
    store: Any = open_store(f"sqlite:///{database}")
    store.execute(charge_of("h"))
    gone = database.with_name(what)
    gone.rename(database.with_name("moved"))
    if replaced:
        gone.write_bytes(b"")
    with pytest.raises(BudgetStoreError, match=f"{database} or its -wal file was deleted or replaced"):
        store.sync()
    store._look_at = 0.0  # a second has passed
    with pytest.raises(BudgetStoreError, match=f"{database} or its -wal file was deleted or replaced"):
        store.execute(charge_of("h2"))
    database.with_name("moved").rename(gone)
    store.execute(charge_of("h3"))
    assert calls_of(store) == 2
    store.close()


MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /mnt/share rw shared:1 - nfs4 server:/export rw
31 30 0:41 / /mnt/share/local\\040disk rw - xfs /dev/vdb rw
32 22 0:42 / /home/me/remote rw master:2 - fuse.sshfs me@host: rw
33 22 0:43 / /mnt/c rw - 9p drvfs rw
34 22 0:44 / /covered rw - cifs //server/share rw
35 34 0:45 / /covered rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/ledger.db", None),
        ("/mnt/share/ledger.db", "nfs4"),
        ("/mnt/shared/ledger.db", None),
        ("/mnt/share/local disk/ledger.db", None),
        ("/home/me/remote/a/b/ledger.db", "fuse.sshfs"),
        ("/mnt/c/Users/me/ledger.db", "9p"),
        ("/covered/ledger.db", None),
    ],
)
def test_network_file_systems_are_known_by_the_mount_table(path: str, kind: str | None) -> None:
    assert files.network_kind(path, MOUNTS) == kind
    assert files.network_kind(path, "") is None


def test_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind a symbolic link."""
    (tmp_path / "remote").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "remote")
    monkeypatch.setattr(files, "_mounts", lambda: f"30 22 0:40 / {tmp_path}/remote rw - nfs server:/x rw\n")
    assert "network file system (nfs)" in refusal(tmp_path / "link" / "ledger.db")
    assert not list((tmp_path / "remote").iterdir())


def test_an_old_sqlite(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 23, 1))
    assert "at least 3.24.0 is needed" in refusal(database)


def test_text_that_no_file_can_hold(database: Path, opened: Opener) -> None:
    """Half a surrogate pair cannot be encoded in UTF-8. The store keeps working."""
    store = opened(f"sqlite:///{database}")
    for command in (charge_of("\ud800"), replace(hold_of("h"), subjects=(Subject("user", "\ud800"),))):
        with pytest.raises(BudgetInputError, match="cannot be stored"):
            store.execute(command)
    store.execute(charge_of("h"))
    assert calls_of(store) == 1


def test_many_commands_in_few_transactions(database: Path, opened: Opener) -> None:
    """A command that cannot be stored does not affect the others, and a batch of reads does not wait for a writer."""
    store = opened(f"sqlite:///{database}", timeout=0.5)
    commands = [charge_of("\ud800" if number == 70 else f"h{number}") for number in range(150)]
    outcomes = store.execute_all(commands)
    assert isinstance(outcomes.pop(70), BudgetInputError)
    assert outcomes == [Settled(f"h{number}") for number in range(150) if number != 70]
    assert calls_of(store) == 149
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        read = Read("p", "user", "alice")
        found = store.execute_all([read, read])
        assert [account.spent for each in found if isinstance(each, Accounts) for account in each.accounts] == [
            1490
        ] * 2
        with pytest.raises(BudgetStoreUnavailable, match="kept it locked"):
            store.execute_all([charge_of("h150"), charge_of("h151")], 0.05)
        other.execute("ROLLBACK")
    assert calls_of(store) == 149


def test_closing_after_the_file_has_gone(database: Path) -> None:
    """An error is raised, and the connection is closed all the same."""
    store: Any = open_store(f"sqlite:///{database}")
    store.execute(charge_of("h"))
    database.unlink()
    with pytest.raises(BudgetStoreError, match="deleted or replaced"):
        store.close()
    assert store._connection is None
    store.close()
