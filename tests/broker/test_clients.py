"""Clients that cannot be made."""

import gc
import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from broker import KafkaUnavailable
from broker.kafka.clients import Clients
from dev.ports import HOST, free_port

MAKERS: dict[str, Callable[[Clients], Any]] = {
    "consumer": Clients.consumer,
    "producer": Clients.producer,
    "admin": lambda clients: ExitStack().enter_context(clients.admin()),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_client_that_finds_no_kafka_leaves_no_thread_and_no_socket_behind(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="kafka")  # a captured error would keep its socket
    clients = Clients(f"{HOST}:{free_port()}", {"bootstrap_timeout_ms": 200})
    threads_before, files_before = threading.active_count(), open_files()

    for _ in range(3):
        with pytest.raises(KafkaUnavailable):
            MAKERS[kind](clients)

    # A thread of an earlier test may have ended meanwhile.
    assert threading.active_count() <= threads_before
    assert open_files() <= files_before


def open_files() -> int:
    gc.collect()  # kafka-python leaves its refused connections to the collector
    return len(list(Path("/proc/self/fd").iterdir()))
