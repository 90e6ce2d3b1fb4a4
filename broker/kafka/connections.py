"""What this broker changes in kafka-python's connections: how they find a cluster of which some nodes are
dead, and how they live through a fork.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from ..process.forks import leave_to_parent, reset_on_fork
from . import internals
from .refused_connections import LastFailure, keep_last_words

#: How long a node may take to answer a new connection. kafka-python's own 10 s would be all the time that
#: finding the cluster may take, when the first node asked is a frozen one. It doubles with each failure.
CONNECT_TIMEOUT_MS = 3_000
CONNECT_TIMEOUT_MAX_MS = 10_000


class Connection(KafkaNetClient):  # type: ignore[misc]
    """The connections of one client.

    The servers that it is given are tried in turn. kafka-python picks one at random each time, so it may come
    back to the dead one until the time is over.

    Parameters:
      first: The server to begin with, as ``host:port``, if there is one that is known to answer.

    Attributes:
      asked: The server that was tried last; once the client is made, the one that answered.
      failure: Why servers were reached and did not let it in.
    """

    def __init__(self, *, first: str | None = None, **configs: Any) -> None:
        self.asked: str | None = None
        net = NetworkSelector(**configs)
        manager = _Manager(
            net,
            **configs,
            socket_connection_setup_timeout_ms=CONNECT_TIMEOUT_MS,
            socket_connection_setup_timeout_max_ms=CONNECT_TIMEOUT_MAX_MS,
        )
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
    """Leaves time for the other servers while it looks for the cluster, and keeps why one refused it."""

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
