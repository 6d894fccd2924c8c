"""The command `serve`: workers, prefixes, logs, refusals to start, and the shutdown."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from litellm_budget_plugin.core.commands import Granted, Settled
from litellm_budget_plugin.stores.registry import open_store
from tests.server.dashboard.desk import account, load
from tests.server.process import ROOT, Served
from tests.stores.desk import account_of, calls_of, charge_of, hold_of
from tests.stores.engines import ENGINES

OwnServer = Callable[..., Served]


def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command, which is expected to end by itself."""
    command = [sys.executable, "-m", "litellm_budget_plugin", *arguments]
    return subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["redis", "postgres", "sqlite"])
def test_several_workers_are_one_ledger(own_server: OwnServer, tmp_path: Path, engine: str) -> None:
    """A limit of 1000 has room for 33 holds of 30, whichever worker is asked; repeated holds change nothing."""
    server = own_server("--workers", "2", store_url=ENGINES[engine](tmp_path))
    store, replies = open_store(server.url(), timeout=30.0), []

    def work(number: int) -> None:
        replies.append(store.execute(hold_of(f"h{number}", usd=30)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    granted = [reply for reply in replies if isinstance(reply, Granted)]
    assert len(granted) == 33 and account_of(store).held == 990
    assert store.execute_all([hold_of(one.hold, usd=30) for one in granted]) == granted
    assert store.execute_all([charge_of(one.hold) for one in granted]) == [Settled(one.hold) for one in granted]
    assert (account_of(store).held, calls_of(store)) == (0, 33)
    store.close()
    end = time.monotonic() + 30
    while len({line["message"] for line in _lines(server) if "Started server process" in line["message"]}) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)


def _workers(server: Served) -> list[int]:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    said = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    workers = [pid for pid, words in said.items() if b"spawn_main" in words and b"resource_tracker" not in words]
    assert len(workers) == 2
    return workers


def _lives(pid: int) -> bool:
    """Return whether the process runs. A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_that_dies_is_replaced(own_server: OwnServer) -> None:
    server = own_server("--workers", "2")
    store = open_store(server.url(), timeout=10.0)
    store.execute(charge_of("h"))
    for pid in _workers(server):
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 30
    while True:
        try:
            assert store.execute(charge_of("h"), 1.0) == Settled("h")
            break
        except Exception:
            assert time.monotonic() < end
    assert calls_of(store) == 1
    store.close()
    assert server.terminate() == 0


def test_workers_end_with_their_parent(own_server: OwnServer) -> None:
    """This holds even if the parent is killed and cannot tell them: the port is free again."""
    server = own_server("--workers", "2")
    workers = _workers(server)
    server.kill()
    end = time.monotonic() + 30
    while any(_lives(pid) for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.05)
    server.start()


def test_a_path_prefix(own_server: OwnServer) -> None:
    """This holds whether the proxy removes the prefix or not."""
    server = own_server("--root-path", "/budgets")
    for base in (server.base, f"{server.base}/budgets"):
        store = open_store(base)
        assert store.execute(charge_of("h")) == Settled("h")
        store.close()
        assert httpx.get(f"{base}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{server.base}/openapi.json").json()["servers"] == [{"url": "/budgets"}]


def test_the_log_is_lines_of_json_without_secrets(own_server: OwnServer) -> None:
    server = own_server("--log-requests")
    key = server.create_key("p")
    server.terminate()
    server.start()
    httpx.get(f"{server.base}/v1?key={key}", headers={"Authorization": f"Bearer {key}"})
    httpx.get(f"{server.base}/v1%0A%7B%22level%22:%22forged%22%7D")
    server.terminate()
    lines = _lines(server)
    [good] = [line for line in lines if line.get("status") == 200 and line["path"] == "/v1"]
    assert (good["method"], good["key"], good["level"]) == ("GET", key[4:16], "INFO")
    assert not [line for line in lines if line["level"] == "forged"]
    assert key.split("_", 2)[2] not in server.log.read_text()


def _lines(server: Served) -> list[dict[str, Any]]:
    # The line that is being written at this moment has no end yet.
    return [json.loads(line) for line in server.log.read_text().rpartition("\n")[0].splitlines()]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ["sqlite:///l.db", "--host", "0.0.0.0"],
            1,
            "there is no key yet. Make one: litellm-budget keys create",
        ),  # it is refused
        (["memory://", "--host", "0.0.0.0"], 2, "served on loopback only"),
        (["memory://", "--workers", "2"], 2, "several workers need a file or a server"),
        (["https://:secret@else.where"], 2, "is an endpoint itself"),
        (["sqlit:///l.db"], 2, "did you mean sqlite://?"),
        (["env:NOT_SET"], 1, "'NOT_SET' is not set"),
        (["sqlite:///l.db", "--root-path", "budgets/"], 2, "--root-path must be like /budgets"),
        (["sqlite:///l.db", "--host", "192.0.2.1"], 1, "there is no key yet"),
        (["sqlite:///l.db", "--port", "99999"], 2, "--port"),
    ],
)
def test_what_cannot_be_served(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    done = run(tmp_path, "serve", *arguments)
    assert done.returncode == code and said in done.stderr, done.stderr
    assert "secret" not in done.stderr and "Traceback" not in done.stderr


def test_a_port_that_is_taken(own_server: OwnServer, tmp_path: Path) -> None:
    server = own_server()
    done = run(tmp_path, "serve", "sqlite:///other.db", "--port", str(server.port))
    assert (
        done.returncode == 1
        and f"127.0.0.1:{server.port} cannot be listened on: another program listens there" in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_the_store_of_the_settings_is_served(own_server: OwnServer, tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--workers", "2", LITELLM_BUDGET_STORE_URL="memory://")
    assert "several workers need a file or a server" in done.stderr


def test_an_open_server_says_so(own_server: OwnServer) -> None:
    """It also says that it listens, and on which address."""
    server = own_server()
    said = [line["message"] for line in _lines(server)]
    assert any(
        f"serving {server.store_url}" in message and f"http://127.0.0.1:{server.port}" in message for message in said
    )
    assert any("no key" in message for message in said)
    # A server with a key does not say so.
    server.create_key("p")
    keyed = own_server(store_url=server.store_url)
    said = [line["message"] for line in _lines(keyed)]
    assert any("serving" in message for message in said) and not any("no key" in message for message in said)


@pytest.mark.parametrize(
    ("options", "client"),
    [
        ((), "127.0.0.1"),
        (("--proxies", "203.0.113.1,10.0.0.0/8"), "127.0.0.1"),
        (("--proxies", "127.0.0.1"), "198.51.100.9"),
        (("--proxies", "127.0.0.0/8,203.0.113.7"), "198.51.100.9"),
    ],
)
def test_only_a_proxy_that_is_named_says_who_asks(own_server: OwnServer, options: tuple[str, ...], client: str) -> None:
    """The last address that is not a proxy counts: the client could have made up those before it."""
    server = own_server("--log-requests", *options)
    forwarded = "192.0.2.1, 198.51.100.9" + (", 203.0.113.7" if "203.0.113.7" in "".join(options) else "")
    httpx.get(f"{server.base}/healthz?x", headers={"X-Forwarded-For": forwarded}).raise_for_status()
    server.terminate()
    assert [line["client"] for line in _lines(server) if line.get("path") == "/healthz"] == [client]


@pytest.mark.parametrize("proxies", ["*", "0.0.0.0/0", "::/0", "proxy.example", "10.0.0.1,*", "10.0.0.0/99"])
def test_proxies_are_named_by_their_addresses(tmp_path: Path, proxies: str) -> None:
    done = run(tmp_path, "serve", "sqlite:///l.db", "--proxies", proxies)
    assert done.returncode == 2 and "--proxies" in done.stderr


_HEAD = "POST {} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nContent-Length: 1000\r\nContent-Type: {}\r\n\r\n"
_FORM, _JSON = "application/x-www-form-urlencoded", "application/json"


def test_clients_that_go_away_are_no_failures(own_server: OwnServer, tmp_path: Path) -> None:
    """They disconnect while they send, while they wait for the answer, and while they receive it."""
    url = f"sqlite:///{tmp_path}/many.db"
    load(url, [account(f"user{number}", number=number) for number in range(5000)])
    server = own_server("--log-requests", store_url=url)
    paths = ("/v1/command", "/v1/commands", "/v1/rows/write", "/v1/rows/read", "/get_budget", "/set_budget")
    begun = [_HEAD.format(path, _JSON) + '{"type' for path in paths]
    begun += [_HEAD.format(path, _FORM) + "key=x" for path in ("/login", "/subject/limit", "/subject/reset")]
    begun += [
        f"GET {path}?project=shop HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for path in ("/export.csv", "/export.json", "/subjects")
    ]
    for text in begun:
        for received in (0, 1):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
                raw.sendall(text.encode())
                if text.startswith("GET") and received:
                    raw.recv(1)
                # Closing with unread data makes the server learn of it at once.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    httpx.get(f"{server.base}/readyz").raise_for_status()
    server.terminate()
    lines = _lines(server)
    assert not [line for line in lines if "exception" in line or line["level"] in ("ERROR", "CRITICAL")]
    assert "Traceback" not in server.log.read_text()
    assert {line["status"] for line in lines if line.get("method") == "POST"} <= {499}
