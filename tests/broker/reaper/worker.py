"""A process that registers with a reaper and waits for its end: ``python -m tests.broker.reaper.worker PID``.

It does what the lines of its standard input say: ``join GROUP MEMBER``, ``leave``, ``goodbye``, ``fork``,
``limit NUMBER MILLISECONDS`` and ``end NUMBER`` of a task, ``hold SECONDS`` of the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import sys
import time
from types import SimpleNamespace

from broker.kafka.types import Membership
from broker.reaper.registrar import Registrar
from broker.reaper.wire import Introduction, Limited

#: A child does not outlive its test for long.
CHILD_LIFE_S = 30


def main() -> None:
    master_pid = int(sys.argv[1])
    multiprocessing.parent_process = lambda: SimpleNamespace(pid=master_pid)  # type: ignore[assignment,return-value]
    registrar = Registrar(
        lambda: Introduction(f"host:{os.getpid()}", ["kafka:9092"], {"client_id": "x"}, "notes", 10_000)
    )
    slot = registrar.slot()
    registrar.start()
    for line in sys.stdin:
        match line.split():
            case ["join", group, member_id]:
                slot.join(Membership(group, member_id))
            case ["leave"]:
                slot.leave()
            case ["goodbye"]:
                registrar.stop()
            case ["limit", number, limit_ms]:
                registrar.limit(limited(int(number), int(limit_ms)))
            case ["end", number]:
                registrar.end_limit(int(number))
            case ["hold", seconds]:
                ctypes.PyDLL(None).sleep(int(seconds))
            case ["fork"]:
                if os.fork() == 0:
                    os.closerange(0, 3)  # those of the test
                    time.sleep(CHILD_LIFE_S)
                    os._exit(0)
        print(line.strip(), flush=True)  # noqa: T201


def limited(number: int, limit_ms: int) -> Limited:
    return Limited(
        number=number,
        until_s=time.monotonic() + limit_ms / 1000,
        limit_ms=limit_ms,
        message_id=f"message-{number}",
        actor_name="work",
        group_id="g",
        topic="work",
        partition=0,
        offset=100 + number,
        crashes=1,
        partitions=[("work", 0), ("work", 1)],
    )


if __name__ == "__main__":
    main()
