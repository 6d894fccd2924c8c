"""The server that has a project: the one of the URL, the master that a sentinel names, or the node of a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from redis.crc import key_slot

from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.stores.redis.address import Address
from litellm_budget_plugin.stores.redis.failures import LOST, code_of
from litellm_budget_plugin.stores.redis.lines import Answer, Line, Lines, dial
from litellm_budget_plugin.stores.redis.scripts import packed_words

Node = tuple[str, int]
Vet = Callable[[Line, float], None]
"""A check whether the server of a new connection may keep a ledger. It raises BudgetStoreError if not."""


class Topology:
    """The servers of one address: here, the one in its URL. Connections are opened when needed."""

    moves = False
    """Whether another server may take over. If so, call `forget` and ask again."""

    def __init__(self, address: Address, seconds: float, vet: Vet) -> None:
        self._address, self._seconds, self._vet = address, seconds, vet
        self._servers: dict[Node | None, Lines] = {}

    def lines(self, root: bytes, deadline: float) -> Lines:  # noqa: ARG002  # others have to look for it
        """The connections to the server that has the project with this root. Raises one of LOST, or
        BudgetStoreUnavailable, if that server cannot be determined.
        """
        return self._to(self._address.nodes[0] if self._address.nodes else None)

    def everywhere(self, deadline: float) -> list[Lines]:
        """The connections to every server that has projects."""
        return [self.lines(b"", deadline)]

    def forget(self) -> None:
        """Determine the server again, the next time."""

    def close(self) -> None:
        """Close every connection."""
        for lines in list(self._servers.values()):
            lines.close()

    def _to(self, node: Node | None) -> Lines:
        address, seconds, vet = self._address, self._seconds, self._vet
        found = self._servers.get(node)
        if found is None:
            found = Lines(lambda: _dialled(address, node, seconds, vet), address.connections)
            # Two threads that make one at the same time both use the first.
            found = self._servers.setdefault(node, found)
        return found


class Sentinel(Topology):
    """The master that the sentinels of the URL name."""

    moves = True

    def __init__(self, address: Address, seconds: float, vet: Vet) -> None:
        super().__init__(address, seconds, vet)
        self._sentinels = {node: Lines(_sentinel(address, node, seconds), 2) for node in address.nodes}
        self._master: Node | None = None

    def lines(self, root: bytes, deadline: float) -> Lines:  # noqa: ARG002  # the protocol's
        """The connections to the master."""
        master = self._master
        if master is None:
            master = self._master = self._found(deadline)
        return self._to(master)

    def forget(self) -> None:
        """Ask the sentinels again, the next time."""
        self._master = None

    def close(self) -> None:
        """Close every connection."""
        super().close()
        for lines in self._sentinels.values():
            lines.close()

    def _found(self, deadline: float) -> Node:
        asked = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.master)
        for answer in _answers(list(self._sentinels.values()), asked, deadline):
            if answer:
                host, port = answer
                return host.decode(), int(port)
        raise BudgetStoreUnavailable(f"no sentinel that can be reached knows the master {self._address.master!r}")


class Cluster(Topology):
    """The node that has the project's hash slot."""

    moves = True

    def __init__(self, address: Address, seconds: float, vet: Vet) -> None:
        super().__init__(address, seconds, vet)
        self._slots: list[tuple[int, int, Node]] = []
        self._known: tuple[Node, ...] = ()

    def lines(self, root: bytes, deadline: float) -> Lines:
        """The connections to the slot's node."""
        slot = key_slot(root)
        for first, last, node in self._slots or self._found(deadline):
            if first <= slot <= last:
                return self._to(node)
        self._slots = []
        raise BudgetStoreUnavailable(f"no node of the cluster has the hash slot {slot}")

    def everywhere(self, deadline: float) -> list[Lines]:
        """The connections to every node that has slots."""
        return [self._to(node) for node in dict.fromkeys(node for _, _, node in self._found(deadline))]

    def forget(self) -> None:
        """Ask for the slots again, the next time."""
        self._slots = []

    def _found(self, deadline: float) -> list[tuple[int, int, Node]]:
        nodes = list(dict.fromkeys((*self._known, *self._address.nodes)))
        for answer in _answers([self._to(node) for node in nodes], ("CLUSTER", "SLOTS"), deadline):
            slots = [
                (first, last, (master[0].decode(), master[1]))
                for first, last, master, *_ in answer
                # A node that does not know its own address gives an empty one.
                if master[0]
            ]
            if slots:
                self._known = tuple(dict.fromkeys(node for _, _, node in slots))
                self._slots = slots
                return slots
        raise BudgetStoreUnavailable("no node of the cluster that can be reached knows who has which hash slot")


def _answers(servers: list[Lines], command: tuple[str, ...], deadline: float) -> Iterator[Answer]:
    """Yield the servers' answers until the caller accepts one. Each server has its share of the time, so that one that
    hangs cannot use up all of it.
    """
    packed = packed_words(*(word.encode() for word in command))
    for place, lines in enumerate(servers):
        now = time.monotonic()
        try:
            (answer,) = lines.exchange([packed], now + (deadline - now) / (len(servers) - place))
        except LOST as error:
            if code_of(error):
                raise
            continue
        except BudgetStoreUnavailable:
            continue
        if isinstance(answer, Exception):
            raise answer
        yield answer


def _sentinel(address: Address, node: Node, seconds: float) -> Callable[[], Line]:
    return lambda: dial(address, node, True, seconds)


def _dialled(address: Address, node: Node | None, seconds: float, vet: Vet) -> Line:
    end = time.monotonic() + seconds
    line = dial(address, node, False, seconds)
    try:
        vet(line, end)
    except BaseException:
        line.hang_up()
        raise
    return line


def route_to(address: Address, seconds: float, vet: Vet) -> Topology:
    """The topology for an address. Nothing is connected yet."""
    kinds: dict[str, type[Topology]] = {"sentinel": Sentinel, "cluster": Cluster}
    return kinds.get(address.kind, Topology)(address, seconds, vet)
