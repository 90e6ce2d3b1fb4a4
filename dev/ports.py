"""TCP ports of this machine."""

from __future__ import annotations

import errno
import random
import socket

HOST = "127.0.0.1"
#: Below the ports of outgoing connections (from 32768 on Linux): any process could get one of those while a
#: server restarts.
PORTS = range(15_000, 32_000)

# Not the seeded generator of `random`: two test runs would draw the same ports.
_draw = random.SystemRandom()
_handed_out: set[int] = set()


def free_port() -> int:
    """Return a port without a listener that this process has not returned before."""
    while True:
        port = _draw.choice(PORTS)
        if port not in _handed_out and not is_taken(port):
            _handed_out.add(port)
            return port


def is_taken(port: int) -> bool:
    """Return whether a server could not listen on the port.

    Raises:
      OSError: This process may not use the port.
    """
    with socket.socket() as probe:
        # Without it, the closed connections of an earlier server would count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise
    return False


def is_listening(port: int, host: str = HOST) -> bool:
    """Return whether a server accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0
