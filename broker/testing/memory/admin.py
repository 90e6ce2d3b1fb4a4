"""An admin client of a cluster in memory; see ``protocol.AdminClient``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ...kafka.types import GroupMember, Membership, OffsetAndMetadata, TopicPartition
from .cluster import DEFAULT_SETTINGS, MemoryCluster, MemoryProcess
from .faults import Request

T = TypeVar("T")

UNKNOWN_TOPIC_OR_PARTITION = 3
TOPIC_ALREADY_EXISTS = 36
DEFAULT_PARTITIONS = 1
#: The client id of each client in memory, and the host of each process.
MEMORY = "memory"


class MemoryAdmin:
    """See ``protocol.AdminClient``."""

    DEFAULT_CONFIG: Mapping[str, Any] = {
        "bootstrap_timeout_ms": 10_000,
        "client_id": MEMORY,
        "request_timeout_ms": 30_000,
    }

    def __init__(self, cluster: MemoryCluster, process: MemoryProcess, **settings: Any) -> None:
        self._cluster = cluster
        self._process = process
        self._timeout_s = {**self.DEFAULT_CONFIG, **settings}["request_timeout_ms"] / 1000

    def create_topics(self, new_topics: Mapping[str, Any], *, raise_errors: bool) -> Mapping[str, Any]:
        def create() -> Mapping[str, Any]:
            return {"topics": [self._create(name, spec) for name, spec in new_topics.items()]}

        return self._request(Request.CREATE_TOPICS, create)

    def _create(self, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        if name in self._cluster.topics:
            return {"name": name, "error_code": TOPIC_ALREADY_EXISTS, "error_message": "it exists"}
        partitions = spec.get("num_partitions", -1)
        self._cluster.create_topic(
            name, partitions if partitions > 0 else DEFAULT_PARTITIONS, spec.get("configs") or {}
        )
        return {"name": name, "error_code": 0, "error_message": None}

    def wait_for_topics(self, topics: Sequence[str]) -> object:
        """Every node knows a topic at once."""
        return None

    def describe_topics(self, topics: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        return self._request(Request.METADATA, lambda: [self._describe(name) for name in topics])

    def _describe(self, name: str) -> dict[str, Any]:
        topic = self._cluster.topics.get(name)
        if topic is None:
            return {"name": name, "error_code": UNKNOWN_TOPIC_OR_PARTITION}
        partitions = [{"partition_index": partition.partition} for partition in topic.partitions]
        return {"name": name, "error_code": 0, "topic_id": topic.id, "partitions": partitions}

    def topic_names(self) -> Collection[str]:
        return self._request(Request.METADATA, lambda: set(self._cluster.topics))

    def topic_settings(self, topics: Iterable[str]) -> dict[str, dict[str, str | None]]:
        known = self._cluster.topics
        return self._request(
            Request.DESCRIBE_CONFIGS,
            lambda: {
                name: {**DEFAULT_SETTINGS, **known[name].settings} if name in known else {} for name in topics
            },
        )

    def broker_settings(self, node_id: int, names: Iterable[str]) -> dict[str, str | None]:
        return self._request(Request.DESCRIBE_CONFIGS, dict)

    def cluster_id(self) -> str:
        return self._request(Request.METADATA, lambda: "memory")

    def node_count(self) -> int:
        return 1

    def group_members(self, group_id: str) -> Sequence[str]:
        return [member.member_id for member in self.described_members(group_id)]

    def described_members(self, group_id: str) -> Sequence[GroupMember]:
        return self._request(
            Request.DESCRIBE_GROUPS,
            lambda: [
                GroupMember(member_id, MEMORY, MEMORY) for member_id in self._cluster.group(group_id).members
            ],
        )

    def group_offsets(
        self, groups: Mapping[str, Collection[TopicPartition]]
    ) -> dict[str, dict[TopicPartition, OffsetAndMetadata]]:
        def read() -> dict[str, dict[TopicPartition, OffsetAndMetadata]]:
            commits = {group: self._cluster.group(group).offsets for group in groups}
            return {
                group: {p: commits[group][p] for p in partitions if p in commits[group]}
                for group, partitions in groups.items()
            }

        return self._request(Request.FETCH_OFFSETS, read)

    def remove_members(self, members: Collection[Membership]) -> set[Membership]:
        def remove() -> set[Membership]:
            removed = set()
            for membership in members:
                group = self._cluster.group(membership.group)
                if (member := group.members.get(membership.member_id)) is not None:
                    group.leave(member)
                    removed.add(membership)
            self._cluster.changed()
            return removed

        return self._request(Request.LEAVE_GROUP, remove)

    def delete_records(self, records_to_delete: Mapping[TopicPartition, int]) -> object:
        def delete() -> None:
            for partition, offset in records_to_delete.items():
                self._cluster.log(partition).delete_below(offset)

        return self._request(Request.DELETE_RECORDS, delete)

    def close(self) -> None:
        """Nothing is open."""

    def _request(self, kind: Request, effect: Callable[[], T]) -> T:
        return self._cluster.request(self._process, kind, effect, timeout_s=self._timeout_s)
