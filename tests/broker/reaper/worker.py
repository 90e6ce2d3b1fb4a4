"""A process that registers with a reaper and waits for its end: ``python -m tests.broker.reaper.worker PID``.

It does what the lines of its standard input say: ``join GROUP MEMBER``, ``leave``, ``goodbye``, ``fork``.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from types import SimpleNamespace

from broker.kafka.types import Membership
from broker.reaper.registrar import Registrar
from broker.reaper.wire import Introduction

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
            case ["fork"]:
                if os.fork() == 0:
                    os.closerange(0, 3)  # those of the test
                    time.sleep(CHILD_LIFE_S)
                    os._exit(0)
        print(line.strip(), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
