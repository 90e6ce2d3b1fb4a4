"""kafka-python's admin client behind the broker's ``AdminClient``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType


class Admin(KafkaAdminClient):  # type: ignore[misc]
    """See ``protocol.AdminClient``."""

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

    def group_members(self, group_id: str) -> Sequence[str]:
        return [member["member_id"] for member in self.describe_groups([group_id])[group_id]["members"]]


def _values(found: dict[str, dict[str, Any]]) -> dict[str, str | None]:
    return {name: setting["value"] for name, setting in found.items()}
