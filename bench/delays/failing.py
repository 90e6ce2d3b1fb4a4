"""Tasks that all fail at once and wait for their retry, beside others that do not fail."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import dramatiq
import tenacity
from dramatiq import Worker

from bench.delays.ground import QUEUE, say
from broker import KafkaBroker, TemporaryError, retry_if_temporary
from dev.apache_kafka import ApacheKafkaServer
from dev.waiting import wait_until

THREADS = 8
HEALTHY = 5_000
DEADLINE_S = 600.0


def measure_failing(server: ApacheKafkaServer, namespace: str, home: Path, count: int) -> None:
    """The pace of tasks that do not fail: alone, then while ``count`` others wait for a retry in an hour."""
    broker = KafkaBroker(server.address, namespace=namespace, delay_index_dir=str(home / f"{namespace}index"))
    finished = threading.Semaphore(0)
    logging.getLogger("dramatiq").setLevel(logging.CRITICAL)  # it has a traceback for each failure

    @dramatiq.actor(
        broker=broker,
        queue_name=QUEUE,
        retry=tenacity.Retrying(wait=tenacity.wait_fixed(3600), retry=retry_if_temporary),
    )
    def failing() -> None:
        raise TemporaryError("locked")

    @dramatiq.actor(broker=broker, queue_name=QUEUE)
    def healthy() -> None:
        finished.release()

    def pace() -> float:
        begun_s = time.monotonic()
        broker.enqueue_many([healthy.message() for _ in range(HEALTHY)])
        for _ in range(HEALTHY):
            if not finished.acquire(timeout=DEADLINE_S):
                raise TimeoutError("a task did not run")
        return HEALTHY / (time.monotonic() - begun_s)

    worker = Worker(broker, worker_threads=THREADS)
    worker.start()
    try:
        pace()  # until the worker has its partitions
        say(f"healthy tasks a second, alone, {THREADS} threads", pace())
        broker.enqueue_many([failing.message() for _ in range(count)])
        begun_s = time.monotonic()
        wait_until(
            lambda: broker.parts.delays.count(QUEUE) >= count,
            deadline_s=DEADLINE_S,
            what="all retries to wait",
        )
        say(f"{count} tasks failed and wait for their retry after, s", time.monotonic() - begun_s)
        say("healthy tasks a second while those wait", pace())
    finally:
        worker.stop()
        broker.close()
