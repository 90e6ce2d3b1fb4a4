"""Nodes of three are killed, frozen, restarted and cut off while two workers and a sender go on.

Every scenario: what Kafka has acknowledged is done, the order of ordered keys is kept, and no send or count
fails while a majority of the nodes is healthy. One cluster, two workers and one sender live through them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from dev.apache_kafka import ApacheKafkaCluster
from tests.broker.reports.cuttable_proxy import CuttableProxy
from tests.chaos.arena import Arena
from tests.cluster.load import Load
from tests.cluster.test_the_cluster import NOBODY, leader_of
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(400)

DEADLINE_S = 90.0
#: A frozen node, and a majority that is gone.
FROZEN_S = 30.0
GONE_S = 40.0
#: The delay of each answer of a slow node.
SLOW_S = 0.5
#: Longer than a consumer's session: a worker that is cut off from its coordinator loses its partitions.
CUT_S = 15.0
#: dev/apache_kafka.py has as many partitions of offsets.
OFFSETS_PARTITIONS = 4


@pytest.fixture(scope="module")
def proxy() -> Iterator[CuttableProxy]:
    """Between the second worker and every node."""
    proxy = CuttableProxy()
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def load(
    _harmed_cluster: ApacheKafkaCluster, proxy: CuttableProxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Load]:
    _harmed_cluster.start()
    home: Path = tmp_path_factory.mktemp("load")
    play = Arena(_harmed_cluster.address, home, session_timeout_ms=10_000)
    workers = [play.worker(), play.worker(client_options={"proxy_url": proxy.url})]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.wait_until_ready()
    load = Load(play)
    yield load
    load.stop()
    play.close()


@pytest.fixture
def cluster(kafka_cluster: ApacheKafkaCluster, load: Load, proxy: CuttableProxy) -> ApacheKafkaCluster:
    """The cluster, whole, under load."""
    proxy.restore()
    load.start()
    load.wait_for_more()
    return kafka_cluster


def coordinator_of(servers: str, group: str) -> int:
    """The number of the node that coordinates a group: the leader of its partition of the offsets' topic."""
    code = 0
    for character in group:  # Java's String.hashCode
        code = (31 * code + ord(character)) & 0xFFFFFFFF
    code = code - 2**32 if code >= 2**31 else code
    return leader_of(servers, "__consumer_offsets", abs(code) % OFFSETS_PARTITIONS)


def controller_of(servers: str) -> int:
    """The number of the node that is the cluster's controller; NOBODY while that cannot be told."""
    admin = KafkaAdminClient(bootstrap_servers=servers.split(","))
    try:
        (topic,) = admin.describe_metadata_quorum()["topics"]
        return int(topic["partitions"][0]["leader_id"])
    except KafkaError:
        return NOBODY
    finally:
        admin.close()


VICTIMS: dict[str, Callable[[str, Arena], int]] = {
    "the leader of a queue's partition": lambda servers, play: leader_of(servers, play.topic()),
    "the coordinator of a queue's group": lambda servers, play: coordinator_of(
        servers, play.broker.parts.group_of(play.queues[0])
    ),
    "the coordinator of the forwarders": lambda servers, play: coordinator_of(
        servers, f"{play.broker.parts.topics.delayed}.forwarders"
    ),
    "the controller": lambda servers, play: controller_of(servers),
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_the_death_of_one_node_fails_no_send_and_loses_nothing(
    cluster: ApacheKafkaCluster, load: Load, victim: str
) -> None:
    find = VICTIMS[victim]
    first = wait_until(
        lambda: max(0, find(cluster.address, load.play)), deadline_s=DEADLINE_S, what=f"{victim} to be known"
    )
    cluster.nodes[first].kill()
    others = ",".join(server.address for node, server in cluster.nodes.items() if node != first)
    wait_until(
        lambda: find(others, load.play) not in (first, NOBODY), deadline_s=DEADLINE_S, what="a successor"
    )
    load.wait_for_more()
    cluster.start()
    load.settle(f"SIGKILL of {victim}")
    assert load.phase.failures == load.phase.failed_counts == []


def test_a_rolling_restart_fails_no_send_and_loses_nothing(cluster: ApacheKafkaCluster, load: Load) -> None:
    for server in cluster.nodes.values():
        server.stop()
        cluster.start()
        wait_until_in_sync(cluster, load.play)
    load.wait_for_more()
    load.settle("a rolling restart")
    assert load.phase.failures == load.phase.failed_counts == []


def test_a_node_that_is_frozen_for_half_a_minute_fails_no_send_and_loses_nothing(
    cluster: ApacheKafkaCluster, load: Load
) -> None:
    frozen = leader_of(cluster.address, load.play.topic())
    cluster.nodes[frozen].pause()
    wait_at_least(FROZEN_S)
    cluster.nodes[frozen].resume()
    load.wait_for_more()
    load.settle("SIGSTOP of a leader for 30 s")
    assert load.phase.failures == load.phase.failed_counts == []


def test_the_absence_of_a_majority_loses_nothing_that_was_acknowledged(
    cluster: ApacheKafkaCluster, load: Load
) -> None:
    for node in (2, 3):
        cluster.nodes[node].kill()
    wait_at_least(GONE_S)
    cluster.start()
    load.wait_for_more()
    load.settle("two of three nodes gone for 40 s")


def test_a_reassignment_of_all_partitions_fails_no_send_and_loses_nothing(
    cluster: ApacheKafkaCluster, load: Load
) -> None:
    topic = load.play.topic()
    admin = KafkaAdminClient(bootstrap_servers=cluster.address.split(","))
    try:
        (found,) = admin.describe_topics([topic])
        # The followers come first: each partition gets another leader, and for a while one copy less.
        replicas = {p["partition_index"]: p["replica_nodes"] for p in found["partitions"]}
        for place in (slice(1, 3), slice(0, 3)):
            admin.alter_partition_reassignments(
                {TopicPartition(topic, n): [*nodes[1:], nodes[0]][place] for n, nodes in replicas.items()}
            )
            wait_until(
                lambda: not admin.list_partition_reassignments(), deadline_s=DEADLINE_S, what="the moves"
            )
            load.wait_for_more()
    finally:
        admin.close()
    load.settle("a reassignment of all partitions of the queue")
    assert load.phase.failures == load.phase.failed_counts == []


def test_a_worker_that_is_cut_off_from_one_node_hands_over_or_goes_on(
    cluster: ApacheKafkaCluster, load: Load, proxy: CuttableProxy
) -> None:
    coordinator = coordinator_of(cluster.address, load.play.broker.parts.group_of(load.play.queues[0]))
    proxy.cut(cluster.nodes[coordinator].port)
    wait_at_least(CUT_S)
    load.wait_for_more()
    proxy.restore()
    load.settle("a worker cut off from its coordinator for 15 s", may_overlap=True)
    assert load.phase.failures == load.phase.failed_counts == []


def test_a_node_that_answers_a_worker_slowly_loses_nothing(
    cluster: ApacheKafkaCluster, load: Load, proxy: CuttableProxy
) -> None:
    proxy.slow_down(cluster.nodes[leader_of(cluster.address, load.play.topic())].port, SLOW_S)
    load.wait_for_more(240)
    proxy.restore()
    load.settle("a node that answers a worker 500 ms late")
    assert load.phase.failures == load.phase.failed_counts == []


def wait_until_in_sync(cluster: ApacheKafkaCluster, play: Arena) -> None:
    def is_in_sync() -> bool:
        return not any(topic.under_replicated for topic in play.broker.check_topics())

    wait_until(is_in_sync, deadline_s=DEADLINE_S, what="the restarted node to have all records")


def wait_at_least(seconds: float) -> None:
    """How long a harm lasts is part of the scenario."""
    time.sleep(seconds)
