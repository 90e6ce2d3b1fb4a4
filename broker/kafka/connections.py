"""What this broker changes in kafka-python's connections: how they find a cluster of which some nodes are
dead, how they live through a fork, and how they end with the process.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from kafka import KafkaProducer
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from ..process.forks import leave_to_parent, reset_on_fork

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
        """Leave everything to the parent. kafka-python's own close() shuts the sockets down, for the parent
        as well, and takes them out of a set that both share.
        """
        leave_to_parent(self)
        self._net._closed = True
        watched = self._net._selector.get_map()
        for key in list(watched.values()) if watched else []:
            key.fileobj.close()  # the child's file alone: the socket lives on
        self._net._selector.close()


class _Manager(KafkaConnectionManager):  # type: ignore[misc]
    """Leaves time for the other servers while it looks for the cluster."""

    def get_connection(self, node_id: Any, timeout_ms: float | None = None, **options: Any) -> Any:
        if timeout_ms is not None and len(self.cluster._bootstrap_brokers) > 1:
            timeout_ms = min(timeout_ms, self.socket_connection_setup_timeout_ms(node_id))
        return super().get_connection(node_id, timeout_ms=timeout_ms, **options)


class Producer(KafkaProducer):  # type: ignore[misc]
    """A producer that can be used for as long as the process runs, and is closed by nobody but its owner.

    kafka-python closes its producers in an ``atexit`` handler, so what runs after that one can send nothing.
    There is no need to: whoever sends waits for the answer. And it closes one that is thrown away; in the
    child of a fork that would be the parent's, and while the interpreter ends it would wait for a thread that
    never runs again.
    """

    def __init__(self, **configs: Any) -> None:
        super().__init__(**configs)
        self._unregister_cleanup()
        self._owner_pid = os.getpid()

    def __del__(self) -> None:
        if not sys.is_finalizing() and getattr(self, "_owner_pid", None) == os.getpid():
            super().__del__()


def _address(server: Any) -> str:
    return f"{server.host}:{server.port}"
