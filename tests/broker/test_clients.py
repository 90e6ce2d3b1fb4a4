"""Clients that cannot be made."""

import gc
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kafka import codec

from broker import KafkaBroker, KafkaUnavailable
from broker.kafka.clients import Clients
from dev.ports import HOST, free_port
from tests.waiting import wait_until

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

    # Threads of an earlier test may have ended, or connected again, meanwhile.
    wait_until(
        lambda: threading.active_count() <= threads_before and open_files() <= files_before,
        deadline_s=60,
        what="no thread and no socket to be left",
    )


def open_files() -> int:
    gc.collect()  # kafka-python leaves its refused connections to the collector
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("name", "package"), [("zstd", "zstandard"), ("snappy", "python-snappy"), ("lz4", "lz4")]
)
def test_a_compression_whose_package_is_missing_is_refused_when_the_broker_is_made(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    KafkaBroker(client_options={"compression_type": name})
    monkeypatch.setattr(codec, f"has_{name}", lambda: False)
    with pytest.raises(ValueError, match=rf"install {package} \(the broker's extra '{name}'\)"):
        KafkaBroker(client_options={"compression_type": name})
    with pytest.raises(ValueError, match=package):
        KafkaBroker(url=f"kafka://localhost:9092?compression_type={name}")


def test_only_a_compression_that_kafka_knows_is_accepted() -> None:
    for name in (None, "gzip"):
        KafkaBroker(client_options={"compression_type": name})
    for unknown in ("brotli", "", "ZSTD"):
        with pytest.raises(ValueError, match="Kafka knows gzip, zstd, snappy, lz4"):
            KafkaBroker(client_options={"compression_type": unknown})


def test_a_consumer_without_a_group_has_no_name_of_a_static_member() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        clients = Clients(f"127.0.0.1:{server.getsockname()[1]}", {"group_instance_id": "a"})
        for group, name in ((None, None), ("workers", "a")):
            settings = {} if group is None else {"group_id": group}
            consumer = clients.consumer(api_version=(3, 9), **settings)
            assert consumer.config["group_instance_id"] == name
            consumer.close(autocommit=False, timeout_ms=0)
