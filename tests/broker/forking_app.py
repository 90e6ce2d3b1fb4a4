"""A program that uses a broker, forks, and uses it in both processes: what a preloading web server does.

Each process prints a line of JSON with what it saw.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import sys
import threading
import time
from typing import Any

import dramatiq

from broker import KafkaBroker
from tests.broker.inherited_locks import locks_of

#: The test has a deadline.
TIMEOUT_MS = 600_000


def use(broker: KafkaBroker, task: dramatiq.Actor[[str], None], name: str) -> None:
    """Everything that a process which is no worker asks of a broker."""
    task.send(name)
    task.send_with_options(args=(name,), delay=3_600_000)
    broker.join("empty", timeout=TIMEOUT_MS)
    said = {
        "name": name,
        "count": broker.count("work"),
        "delayed": broker.delayed("work").count,
        "dead_letters": len(list(broker.dead_letters("work"))),
    }
    os.write(1, json.dumps(said).encode() + b"\n")  # a line of two processes is not to be mixed


def child(broker: KafkaBroker, task: dramatiq.Actor[[str], None], way: str) -> None:
    """Use the broker in a child, and wait until that has ended."""
    if way == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=use, args=(broker, task, "child"))
        process.start()
        say("forked")
        process.join()
        if process.exitcode != 0:
            raise SystemExit(f"the child ended with {process.exitcode}")
        return
    pid = os.fork()
    if pid == 0:
        use(broker, task, "child")
        sys.exit(0)  # ends as a program does, which finalises all that it holds
    say("forked")
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise SystemExit(f"the child ended with {status}")


def child_with_locks(broker: KafkaBroker) -> None:
    """Say which locks of the parent's broker the child's has still."""
    locks = locks_of(broker)
    pid = os.fork()
    if pid == 0:
        ours = {id(lock) for lock in locks.values()}  # which live on, so that no other one has its id
        inherited = sorted(path for path, lock in locks_of(broker).items() if id(lock) in ours)
        os.write(1, json.dumps({"name": "child", "inherited": inherited}).encode() + b"\n")
        os._exit(0)
    os.waitpid(pid, 0)
    say_all({"name": "parent", "locks": sorted(locks)})


def say(name: str) -> None:
    say_all({"name": name})


def say_all(said: dict[str, Any]) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


def main(servers: str, namespace: str, way: str, before: str) -> None:
    faulthandler.enable()  # for the SIGABRT of an impatient test
    broker = KafkaBroker(servers, namespace=namespace, partitions=1, enqueue_timeout_ms=TIMEOUT_MS)
    broker.declare_queue("empty")

    @dramatiq.actor(broker=broker, queue_name="work")
    def task(name: str) -> None:
        """Nothing runs it here."""

    imported = set(sys.modules)
    if "used" in before:
        use(broker, task, "parent")
    if "imports" in before:
        say_all({"imported": sorted(set(sys.modules) - imported)})
        return
    if "locks" in before:
        child_with_locks(broker)
        return
    senders: list[threading.Thread] = []
    if "sending" in before:
        say("ready")
        sys.stdin.readline()  # Kafka is away by then
        begun = threading.Barrier(4)

        def send() -> None:
            begun.wait()
            task.send("thread")

        senders = [threading.Thread(target=send) for _ in range(3)]
        for sender in senders:
            sender.start()
        begun.wait()
        # One of them tries to connect, and the others wait for it.
        while "used" not in before and not any("attempt" in each.name for each in threading.enumerate()):
            time.sleep(0.01)
    child(broker, task, way)
    for sender in senders:
        sender.join()
    use(broker, task, "parent again")


if __name__ == "__main__":
    main(*sys.argv[1:])
