"""The nodes of a cluster get a newer version of Kafka one after another while a worker and a sender go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dev.apache_kafka import ApacheKafkaCluster, fetch_apache_kafka
from tests.chaos.arena import Arena
from tests.cluster.load import Load
from tests.cluster.test_under_load import wait_until_in_sync
from tests.conftest import KAFKA_JARS

pytestmark = pytest.mark.timeout(400)

EARLIER, LATER = "4.3.1", "4.4.0"


@pytest.fixture
def earlier_cluster(server_home: Callable[[], Path]) -> Iterator[ApacheKafkaCluster]:
    with ExitStack() as homes:
        cluster = ApacheKafkaCluster(server_home, libs=fetch_apache_kafka(KAFKA_JARS, EARLIER))
        for server in cluster.nodes.values():
            homes.callback(shutil.rmtree, server.home, ignore_errors=True)
        homes.callback(cluster.kill)
        cluster.start()
        yield cluster


def test_a_rolling_upgrade_of_all_nodes_fails_no_send_and_loses_nothing(
    earlier_cluster: ApacheKafkaCluster, tmp_path: Path
) -> None:
    cluster, later = earlier_cluster, fetch_apache_kafka(KAFKA_JARS, LATER)
    play = Arena(cluster.address, tmp_path, session_timeout_ms=10_000)
    try:
        play.start_worker()
        load = Load(play)
        load.start()
        load.wait_for_more()
        for server in cluster.nodes.values():
            server.stop()
            server.install(later)
            cluster.start()
            wait_until_in_sync(cluster, play)
            load.wait_for_more()
        cluster.nodes[1].raise_features(LATER.rpartition(".")[0])
        load.wait_for_more()
        load.settle(f"a rolling upgrade from Kafka {EARLIER} to {LATER}")
        assert load.phase.failures == []
    finally:
        play.close()
