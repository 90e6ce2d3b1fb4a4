"""TCP ports of this machine."""

from __future__ import annotations

import errno
import random
import socket

HOST = "127.0.0.1"
#: Below the ports that systems give to outgoing connections (from 32768 on Linux): one of those could go to
#: anybody while a server of ours is down.
PORTS = range(15_000, 32_000)

# Not the seeded generator of `random`: two test runs would draw the same ports.
_draw = random.SystemRandom()
_handed_out: set[int] = set()


def free_port() -> int:
    """A port that nothing listens on right now, and that this process has not been given before."""
    while True:
        port = _draw.choice(PORTS)
        if port not in _handed_out and not is_taken(port):
            _handed_out.add(port)
            return port


def is_taken(port: int) -> bool:
    """Whether a server could not listen there.

    Raises:
      OSError: It cannot be told, for a port that is not ours to use.
    """
    with socket.socket() as probe:
        # Or the connections of a server that stopped a minute ago would count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise
    return False


def is_listening(port: int, host: str = HOST) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0
