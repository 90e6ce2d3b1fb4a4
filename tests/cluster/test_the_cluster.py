"""The cluster that the other scenarios stand on."""

from __future__ import annotations

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from dev.apache_kafka import ApacheKafkaCluster
from dev.kafka_protocol import brokers_of
from tests.waiting import wait_until

NOBODY = -1


def leader_of(bootstrap_servers: str, topic: str, partition: int = 0) -> int:
    """The number of the node that leads a partition; NOBODY while that cannot be told."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers.split(","))
    try:
        (found,) = admin.describe_topics([topic])
        return next(p["leader_id"] for p in found["partitions"] if p["partition_index"] == partition)
    except KafkaError:  # the node that was asked is the one that died
        return NOBODY
    finally:
        admin.close()


def test_another_node_leads_a_partition_once_its_leader_was_killed(
    kafka_cluster: ApacheKafkaCluster, namespace: str
) -> None:
    topic = f"{namespace}replicated"
    admin = KafkaAdminClient(bootstrap_servers=kafka_cluster.address.split(","))
    admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 3}}, wait_for_metadata=True)
    admin.close()
    first = leader_of(kafka_cluster.address, topic)

    kafka_cluster.nodes[first].kill()
    others = ",".join(server.address for node, server in kafka_cluster.nodes.items() if node != first)
    wait_until(lambda: leader_of(others, topic) not in (first, NOBODY), deadline_s=40, what="another leader")

    kafka_cluster.start()
    assert len(brokers_of(kafka_cluster.nodes[first].address)) == 3
