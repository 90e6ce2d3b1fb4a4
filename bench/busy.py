"""Keeps a Kafka server as busy as before, during a measurement beside it.

    python -m bench.busy HOST:PORT PID SHARE

Sends the smallest request (ApiVersions) whenever the server's process has used less than SHARE of a core so
far. A request costs the client a fraction of its cost for the server.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.servers import cpu_s_of
from dev.child import Child
from dev.server import Server
from dev.stack import ROOT

#: ApiVersions v0: api key, version, correlation id, no client id (https://kafka.apache.org/protocol)
_REQUEST = struct.pack(">ihhih", 10, 18, 0, 1, -1)
_PIPELINED = 20
_REST_S = 0.002


@contextmanager
def kept_busy(server: Server, share: float, home: Path) -> Iterator[None]:
    """Keep `server` at `share` of a core."""
    command = [sys.executable, "-m", "bench.busy", server.address, str(server.child.pid), str(share)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    asker = Child("what keeps Kafka busy", command, log=home / "busy.log", cwd=ROOT, env=env)
    asker.start()
    try:
        yield
        asker.check()
    finally:
        asker.kill()


def main() -> None:
    address, pid, share = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = connection.makefile("rb", buffering=1 << 16)
        began_s, used_before_s = time.monotonic(), cpu_s_of(pid)
        while True:
            if cpu_s_of(pid) - used_before_s >= share * (time.monotonic() - began_s):
                time.sleep(_REST_S)
                continue
            connection.sendall(_REQUEST * _PIPELINED)
            for _ in range(_PIPELINED):
                (length,) = struct.unpack(">i", answers.read(4))
                answers.read(length)


if __name__ == "__main__":
    main()
