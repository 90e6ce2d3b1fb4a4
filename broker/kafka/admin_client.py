"""kafka-python's admin client behind the broker's ``AdminClient``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType, MemberToRemove
from kafka.structs import TopicPartition as KafkaPartition

from . import internals
from .errors import FencedInstanceIdError, KafkaError, UnknownMemberIdError
from .types import GroupMember, Membership, OffsetAndMetadata, TopicPartition

#: The reason that Kafka's log gives for a removal (KIP-800).
REMOVAL_REASON = "the process of this member has ended"


class Admin(KafkaAdminClient):  # type: ignore[misc]
    """See ``protocol.AdminClient``."""

    def __init__(self, **configs: Any) -> None:
        super().__init__(**configs)
        internals.keep_operations_undecoded(self)

    def topic_names(self) -> Collection[str]:
        return set(self.list_topics())

    def topic_settings(self, topics: Iterable[str]) -> dict[str, dict[str, str | None]]:
        # All of them: the embedded broker drops the connection when some are named.
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        described = self.describe_configs(resources, config_filter="all").get("topic", {})
        return {topic: _values(found) for topic, found in described.items()}

    def broker_settings(self, node_id: int, names: Iterable[str]) -> dict[str, str | None]:
        wanted = [ConfigResource(ConfigResourceType.BROKER, str(node_id), dict.fromkeys(names))]
        described = self.describe_configs(wanted, config_filter="all").get("broker", {})
        return _values(next(iter(described.values()), {}))

    def cluster_id(self) -> str:
        return str(self.describe_cluster()["cluster_id"])

    def node_count(self) -> int:
        return len(self.describe_cluster()["brokers"])

    def group_members(self, group_id: str) -> Sequence[str]:
        return [member.member_id for member in self.described_members(group_id)]

    def described_members(self, group_id: str) -> Sequence[GroupMember]:
        return [
            # Kafka writes the address as Java does: "/10.0.0.5".
            GroupMember(member["member_id"], member["client_id"], member["client_host"].lstrip("/"))
            for member in self.describe_groups([group_id])[group_id]["members"]
        ]

    def group_offsets(
        self, groups: Mapping[str, Collection[TopicPartition]]
    ) -> dict[str, dict[TopicPartition, OffsetAndMetadata]]:
        asked = {
            group: [KafkaPartition(*partition) for partition in partitions]
            for group, partitions in groups.items()
            if partitions
        }
        answers = self.list_group_offsets(asked) if asked else {}
        return {
            group: {
                TopicPartition(*partition): OffsetAndMetadata(*commit)
                for partition, commit in answers.get(group, {}).items()
                if commit.offset >= 0
            }
            for group in groups
        }

    def remove_members(self, members: Collection[Membership]) -> set[Membership]:
        by_group: dict[str, list[Membership]] = {}
        for member in members:
            by_group.setdefault(member.group, []).append(member)
        removed: set[Membership] = set()
        for group, leaving in by_group.items():
            asked = [
                MemberToRemove(member.member_id, member.group_instance_id, REMOVAL_REASON)
                for member in leaving
            ]
            answers = self.remove_group_members(group, asked)
            removed |= {member for member in leaving if _is_removed(answers.get(member.member_id))}
        return removed


def _is_removed(answer: Any) -> bool:
    """Whether the answer about one member is a success.

    Raises:
      KafkaError: When it is an error other than that there is no such member any more.
    """
    if answer in (UnknownMemberIdError, FencedInstanceIdError):
        return False
    if answer is None:
        raise KafkaError("Kafka did not answer about a member")
    if answer.errno != 0:
        raise answer()
    return True


def _values(found: dict[str, dict[str, Any]]) -> dict[str, str | None]:
    return {name: setting["value"] for name, setting in found.items()}
