"""Makes logs lose their tails in an unclean election: a node that has not all of one becomes its leader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from dev.apache_kafka import ApacheKafkaCluster
from tests.waiting import wait_until

#: The node that is never harmed, and the two that hold the logs that are cut.
WITNESS, LEADER, FOLLOWER = 1, 2, 3
FRAGILE = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
DEADLINE_S = 60.0


class FragileTopics:
    """Topics of one partition on LEADER and FOLLOWER alone, which lose what only the leader has.

    Parameters:
      topics: The topics' names, and what each is configured with beside FRAGILE.
    """

    def __init__(self, cluster: ApacheKafkaCluster, topics: Mapping[str, Mapping[str, str]]) -> None:
        self._cluster = cluster
        self.names = list(topics)
        with self._admin() as admin:
            admin.create_topics(
                {
                    name: {"assignments": {0: [LEADER, FOLLOWER]}, "configs": {**FRAGILE, **configs}}
                    for name, configs in topics.items()
                },
                wait_for_metadata=True,
            )
        self._wait_until(lambda p: sorted(p["isr_nodes"]) == [LEADER, FOLLOWER], "both nodes to be in sync")

    def leave_the_follower_behind(self) -> None:
        """What is written from now on is on LEADER alone."""
        self._cluster.nodes[FOLLOWER].stop()
        self._wait_until(lambda p: p["isr_nodes"] == [LEADER], "the leader to be alone")

    def elect_the_follower(self) -> None:
        """LEADER dies, and FOLLOWER leads with what it has. LEADER comes back as its follower."""
        self._cluster.nodes[LEADER].stop()
        self._cluster.nodes[FOLLOWER].start()
        self._wait_until(lambda p: p["leader_id"] == FOLLOWER, "the follower to lead")
        self._cluster.start()

    def _wait_until(self, holds: Callable[[dict[str, Any]], bool], what: str) -> None:
        wait_until(
            lambda: all(holds(partition) for partition in self._partitions()),
            deadline_s=DEADLINE_S,
            what=what,
        )

    def _partitions(self) -> list[dict[str, Any]]:
        try:
            with self._admin() as admin:
                return [p for topic in admin.describe_topics(self.names) for p in topic["partitions"]]
        except KafkaError:  # no controller for a moment
            return [{"isr_nodes": [], "leader_id": -1}]

    @contextmanager
    def _admin(self) -> Iterator[KafkaAdminClient]:
        admin = KafkaAdminClient(bootstrap_servers=[self._cluster.nodes[WITNESS].address])
        try:
            yield admin
        finally:
            admin.close()
