"""A topic that wants more replicas in sync than there are."""

from __future__ import annotations

import dramatiq
from kafka import KafkaAdminClient

from broker import EnqueueFailed, KafkaBroker
from dev.apache_kafka import ApacheKafkaCluster
from tests.cluster.test_the_cluster import leader_of
from tests.waiting import wait_until

DEADLINE_S = 90


def test_a_send_that_fails_for_want_of_replicas_says_so(
    kafka_cluster: ApacheKafkaCluster, namespace: str
) -> None:
    topic = f"{namespace}mail"
    configs = {"min.insync.replicas": "3"}
    admin = KafkaAdminClient(bootstrap_servers=kafka_cluster.address.split(","))
    layout = {"num_partitions": 1, "replication_factor": 3, "configs": configs}
    admin.create_topics({topic: layout}, wait_for_metadata=True)
    admin.close()
    broker = KafkaBroker(kafka_cluster.address, namespace=namespace, enqueue_timeout_ms=3_000)

    @dramatiq.actor(broker=broker, queue_name="mail")
    def task() -> None: ...

    task.send()
    leader = leader_of(kafka_cluster.address, topic)
    follower = next(node for node in kafka_cluster.nodes if node != leader)
    kafka_cluster.nodes[follower].kill()
    said: list[str] = []

    def refused() -> bool:
        try:
            task.send()
        except EnqueueFailed as e:
            said.append(str(e))
        return any("NotEnoughReplicas" in line for line in said)

    wait_until(refused, deadline_s=DEADLINE_S, what="Kafka to miss the replica")
    assert "Fewer replicas of the topic are in sync than its min.insync.replicas" in said[-1]
    assert "check that Kafka is reachable" not in said[-1]

    kafka_cluster.start()
    wait_until(lambda: sent(task), deadline_s=DEADLINE_S, what="a send to succeed")
    broker.close()


def sent(task: dramatiq.Actor[[], None]) -> bool:
    try:
        task.send()
    except EnqueueFailed:
        return False
    return True
