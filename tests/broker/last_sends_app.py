"""A program that sends while it ends, in handlers that it has registered at several moments."""

from __future__ import annotations

import atexit
import sys


def send(name: str) -> None:
    task.send(name)


atexit.register(send, "registered before anything was imported")

import _thread  # noqa: E402
import threading  # noqa: E402
from typing import NoReturn  # noqa: E402

import dramatiq  # noqa: E402

from broker import KafkaBroker  # noqa: E402

broker = KafkaBroker(sys.argv[1], namespace=sys.argv[2], partitions=1)


@dramatiq.actor(broker=broker, queue_name="work")
def task(name: str) -> None:
    """Nothing runs it here."""


def no_thread(*args: object, **kwargs: object) -> NoReturn:
    raise RuntimeError("can't start new thread at interpreter shutdown")


def start_no_thread_any_more() -> None:
    """What Python itself does from 3.12 on, before it calls the first handler."""
    vars(_thread)["start_new_thread"] = no_thread
    vars(threading)["_start_new_thread"] = no_thread


atexit.register(send, "registered before the first send")
task.send("the first send")
atexit.register(send, "registered after the first send")
atexit.register(start_no_thread_any_more)
