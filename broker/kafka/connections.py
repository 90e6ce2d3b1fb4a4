"""The broker's changes to kafka-python's connections: they find a cluster with dead nodes, and survive a
fork.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from ..process.forks import leave_to_parent, reset_on_fork
from . import internals
from .refused_connections import LastFailure, keep_last_words

#: The time in which a node must answer a new connection. It doubles with each failure. With kafka-python's
#: own 10 s, a frozen node that is asked first would use all the time for the look-up of the cluster.
CONNECT_TIMEOUT_MS = 3_000
CONNECT_TIMEOUT_MAX_MS = 10_000


class Connection(KafkaNetClient):  # type: ignore[misc]
    """The connections of one client.

    The given servers are tried in turn. kafka-python picks a random one each time, and may pick a dead one
    until the timeout.

    Parameters:
      first: The first server to try, as ``host:port``: one that has answered before, if there is one.
      topics: The topics whose metadata is read together with that of the cluster.

    Attributes:
      asked: The server that was tried last; after the construction of the client, the one that answered.
      failure: The reasons for which reachable servers refused the client.
    """

    def __init__(self, *, first: str | None = None, topics: Iterable[str] = (), **configs: Any) -> None:
        self.asked: str | None = None
        net = NetworkSelector(**configs)
        manager = _Manager(
            net,
            **configs,
            socket_connection_setup_timeout_ms=CONNECT_TIMEOUT_MS,
            socket_connection_setup_timeout_max_ms=CONNECT_TIMEOUT_MAX_MS,
        )
        internals.track_topics(manager, topics)
        super().__init__(net=net, manager=manager)
        self.failure = manager.failure
        turns = self._in_turn(manager.cluster.bootstrap_brokers(), first)
        manager.cluster.bootstrap_brokers = lambda: [next(turns)]
        reset_on_fork(self)

    def _in_turn(self, servers: Sequence[Any], first: str | None) -> Iterator[Any]:
        order = sorted(servers, key=lambda server: (_address(server) != first, random.random()))
        while True:
            for server in order:
                self.asked = _address(server)
                yield server

    def reset_after_fork(self) -> None:
        """Leave everything to the parent."""
        leave_to_parent(self)
        internals.close_selector_in_child(self._net)


class _Manager(KafkaConnectionManager):  # type: ignore[misc]
    """Leaves time for the other servers in a look-up of the cluster, and keeps the reason of a refusal."""

    def __init__(self, *args: Any, **configs: Any) -> None:
        self.failure = LastFailure()
        super().__init__(*args, **configs)

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        # Called by KafkaConnectionManager._connect, kafka/net/manager.py:234 of 3.0.12.
        transport = await super()._build_transport(node, timeout_at=timeout_at)
        keep_last_words(transport)
        return transport

    def get_connection(self, node_id: Any, timeout_ms: float | None = None, **options: Any) -> Any:
        is_new = not internals.is_connected_to(self, node_id)
        if timeout_ms is not None and internals.bootstrap_server_count(self) > 1:
            timeout_ms = min(timeout_ms, self.socket_connection_setup_timeout_ms(node_id))
        connection = super().get_connection(node_id, timeout_ms=timeout_ms, **options)
        if is_new:
            # It fails with what KafkaConnection.initialize has raised (kafka/net/connection.py:364-372, then
            # :226-247), and the manager's own list of such failures stays empty.
            connection.close_future.add_errback(self.failure.note)
        return connection


def _address(server: Any) -> str:
    return f"{server.host}:{server.port}"
