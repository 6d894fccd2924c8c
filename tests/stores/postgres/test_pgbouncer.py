"""Through pgbouncer in transaction mode, where each transaction may run in another session of the server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from litellm_budget_plugin.core.commands import Done, Granted, PutBudget, Settled
from litellm_budget_plugin.stores.protocol import Store
from tests.stores.desk import ALICE, account_of, calls_of, charge_of, hold_of
from tests.stores.postgres.conftest import Look
from tests.stores.postgres.server import shared

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
SESSIONS = 3

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")


@pytest.fixture
def bouncer() -> Iterator[str]:
    """The folder of the socket of a pgbouncer in front of the shared server. It refuses to run as root, too."""
    server = shared()
    folder = Path(tempfile.mkdtemp(prefix="ledger-pgbouncer-"))
    (folder / "users").write_text('"postgres" ""\n')
    (folder / "ini").write_text(
        f"[databases]\n* = host={server.folder} port=5432\n[pgbouncer]\npool_mode = transaction\nauth_type = trust\n"
        f"auth_file = {folder}/users\nunix_socket_dir = {folder}\nlisten_addr =\nlisten_port = 5432\n"
        f"default_pool_size = {SESSIONS}\n"
    )
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, 65534, 65534)
    with (folder / "log").open("wb") as log:
        assert PROGRAM is not None
        process = subprocess.Popen([PROGRAM, str(folder / "ini")], stdout=log, stderr=log, **server._user())  # type: ignore[call-overload]
    deadline = time.monotonic() + 30.0
    while not (folder / ".s.PGSQL.5432").exists():
        assert time.monotonic() < deadline and process.poll() is None, (folder / "log").read_text()
        time.sleep(0.01)
    yield str(folder)
    process.terminate()
    process.wait(30.0)
    shutil.rmtree(folder, ignore_errors=True)


def test_transaction_mode(bouncer: str, opened: Callable[..., Store], look: Look) -> None:
    """Many connections over few sessions: held and charged amounts are exact, and nothing is left in a session."""
    url = shared().url(host=bouncer, prepare="no", pool_size=12, application_name="bounced")
    store = opened(url, timeout=30.0)
    replies: list[object] = []

    def work(thread: int) -> None:
        for number in range(20):
            name = f"{thread}-{number}"
            replies.append(store.execute(hold_of(name, usd=4)))
            if number % 2:
                replies.append(store.execute(charge_of(name, usd=1)))
            if number % 10 == 0:
                change = PutBudget(name, "p", ALICE[0], limit=1000 + number)
                replies.append(store.execute(change))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(map(type, replies)) == {Granted: 240, Settled: 120, Done: 24}
    assert (account_of(store).spent, account_of(store).held, calls_of(store)) == (120, 480, 120)
    store.execute_all([charge_of(f"{thread}-{number}", usd=0) for thread in range(12) for number in range(0, 20, 2)])
    assert (account_of(store).spent, account_of(store).held, calls_of(store)) == (120, 0, 240)
    settings = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bounced'"
    direct = url.replace(bouncer, str(shared().folder))
    [(sessions,)] = look(direct.replace("&application_name=bounced", ""), settings)
    assert 1 <= sessions <= SESSIONS
    assert look(direct, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
