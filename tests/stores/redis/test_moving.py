"""Servers that replace each other: a cluster of three nodes, and a master with a replica under a sentinel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import Read, Settle, Settled
from litellm_budget_plugin.errors import BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.redis.asking import _Refused
from litellm_budget_plugin.stores.redis.names import root_of
from tests.stores.desk import calls_of, charge_of, hold_of
from tests.stores.redis.server import PATIENCE, Server, free_port

Opener = Callable[..., Any]
SLOTS = 16384


def eventually(truth: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + PATIENCE
    while not truth():
        assert time.monotonic() < end
        time.sleep(0.02)


class Nodes:
    """A cluster of three."""

    def __init__(self) -> None:
        self.servers = []
        for _ in range(3):
            # The port of the cluster's bus is the clients' port plus 10,000.
            while (port := free_port()) + 10_000 > 65_535:
                pass
            self.servers.append(Server("cluster-enabled yes", "cluster-node-timeout 1000", port=port))
        self.clients = [server.client() for server in self.servers]
        for place, client in enumerate(self.clients):
            client.execute_command("CLUSTER", "ADDSLOTS", *range(place * SLOTS // 3, (place + 1) * SLOTS // 3))
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
        for server in self.servers[1:]:
            self.clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
        for client in self.clients:
            eventually(lambda client=client: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))
        self.ids = [client.execute_command("CLUSTER", "MYID").decode() for client in self.clients]

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.servers[0].port}"

    def place_of(self, project: str) -> int:
        """The index of the server that has a project."""
        slot = key_slot(root_of("litellm-budget:", project))
        return next(place for place in range(3) if slot < (place + 1) * SLOTS // 3)

    def stop(self) -> None:
        for client in self.clients:
            client.close()
        for server in self.servers:
            server.stop()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    yield found
    found.stop()


def settle(project: str, hold: str) -> Settle:
    return Settle(hold, project, (Subject("user", "alice"),), (), 1, "m")


def spread(nodes: Nodes, word: str) -> list[str]:
    """A project on each node."""
    names = iter(f"{word} {number}" for number in range(1000))
    found: dict[int, str] = {}
    while len(found) < 3:
        name = next(names)
        found.setdefault(nodes.place_of(name), name)
    return [found[place] for place in range(3)]


def test_projects_lie_on_the_nodes_of_their_slots(nodes: Nodes, opened: Opener) -> None:
    """Also for many commands at once, in their order."""
    store, projects = opened(nodes.url), spread(nodes, "staying")
    commands = [settle(project, f"h{number}") for number in range(2) for project in projects]
    assert store.execute_all(commands) == [Settled(command.hold) for command in commands]
    for project, client in zip(projects, nodes.clients):
        assert client.zcard(root_of("litellm-budget:", project) + b":z") == 2
    assert set(projects) <= set(store.projects())


def test_a_project_that_moves_is_followed(nodes: Nodes, opened: Opener) -> None:
    """While its keys move, commands fail rather than run on half of a ledger; afterwards the next node answers."""
    store, project = opened(nodes.url), spread(nodes, "moving")[1]
    store.execute(settle(project, "before"))
    source, target = nodes.clients[1], nodes.clients[2]
    root = root_of("litellm-budget:", project)
    slot = key_slot(root)
    target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", nodes.ids[1])
    source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", nodes.ids[2])
    keys = source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
    for place, key in enumerate(keys):
        with pytest.raises(BudgetStoreUnavailable, match="being moved"):
            # Long enough for several attempts; the error names the move, whatever ended the last attempt.
            store.execute(settle(project, f"on the way {place}"), timeout=0.5)
        source.execute_command("MIGRATE", "127.0.0.1", nodes.servers[2].port, key, 0, 5000)
    for client in (target, source, nodes.clients[0]):
        client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", nodes.ids[2])
    assert store.execute(settle(project, "after")) == Settled("after")
    usage = target.hgetall(root + b":u:4:user:alice")
    assert len(usage) == 1 and target.zcard(root + b":z") == 2


def test_the_reason_that_a_server_gave_outlasts_the_time(nodes: Nodes, opened: Opener) -> None:
    """The error does not say that the last attempt timed out, which would explain nothing."""
    store, deadline = opened(nodes.url), time.monotonic() + PATIENCE
    for late in (BudgetStoreUnavailable("no node"), TimeoutError("the time limit has passed")):
        said = iter([_Refused(redis.exceptions.TryAgainError("rehashing")), late])

        def attempt(said: Iterator[Exception] = said) -> None:
            error = next(said)
            if not isinstance(error, _Refused):
                clock.setattr(time, "monotonic", lambda: deadline)
            raise error

        with pytest.MonkeyPatch.context() as clock, pytest.raises(BudgetStoreUnavailable, match="being moved"):
            store._engine._server._patiently(attempt, deadline)


def test_one_node_of_a_cluster_is_not_a_server(nodes: Nodes, opened: Opener) -> None:
    """It needs the cluster's URL."""
    with pytest.raises(BudgetStoreError, match=r"write redis\+cluster://") as raised:
        for place in range(3):
            opened(f"redis://127.0.0.1:{nodes.servers[place].port}")
    assert not isinstance(raised.value, BudgetStoreUnavailable)


def test_a_node_that_is_away(nodes: Nodes, opened: Opener) -> None:
    """The first node of the URL may be unreachable."""
    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{nodes.servers[2].port}"
    assert opened(url).execute(settle("p", "h")) == Settled("h")
    with pytest.raises(BudgetStoreUnavailable, match="no node of the cluster"):
        opened(f"redis+cluster://127.0.0.1:{free_port()}")


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server, Server]]:
    """A master, its replica, and a sentinel over both."""
    master = Server(port=free_port())
    replica = Server(f"replicaof 127.0.0.1 {master.port}", port=free_port())
    with closing(replica.client()) as client:
        eventually(lambda: client.info("replication")["master_link_status"] == "up")
    sentinel = Server(
        f"sentinel monitor main 127.0.0.1 {master.port} 1",
        "sentinel down-after-milliseconds main 500",
        "sentinel failover-timeout main 5000",
        port=free_port(),
        sentinel=True,
    )
    yield master, replica, sentinel
    for server in (sentinel, replica, master):
        server.stop()


def test_a_failover_is_followed(pair: tuple[Server, Server, Server], opened: Opener) -> None:
    """Within the time-out if that is long enough, else by a later call; replicated data is kept."""
    master, replica, sentinel = pair
    store = opened(f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/main/0", timeout=20.0)
    store.execute(hold_of("h"))
    with closing(master.client()) as client:
        assert client.execute_command("WAIT", 1, 5000) == 1
    with closing(redis.Redis(port=sentinel.port)) as client:
        eventually(lambda: client.execute_command("SENTINEL", "REPLICAS", "main") != [])
    master.kill()
    with pytest.raises(BudgetStoreUnavailable):
        store.execute(charge_of("h"), timeout=0.1)
    assert store.execute(charge_of("h")) == Settled("h")
    assert calls_of(store) == 1
    assert store.execute(Read("p", "user")).accounts[0].held == 0
    with closing(replica.client()) as client:
        assert client.info("replication")["role"] == "master"


def test_a_master_that_no_sentinel_knows(pair: tuple[Server, Server, Server], opened: Opener) -> None:
    with pytest.raises(BudgetStoreUnavailable, match="no sentinel that can be reached knows the master 'other'"):
        opened(f"redis+sentinel://127.0.0.1:{pair[2].port}/other", timeout=0.5)
