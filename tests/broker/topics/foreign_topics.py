"""Topics that somebody else has made, and changes."""

from __future__ import annotations

from kafka.admin import ConfigResource, ConfigResourceType

from broker import KafkaBroker
from tests.broker.kafka_python import whole_admin

QUEUE = "mail"


def create(broker: KafkaBroker, topic: str, configs: dict[str, str], *, partitions: int = 2) -> None:
    layout = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
    with whole_admin(broker.parts.clients) as admin:
        admin.create_topics({topic: layout}, wait_for_metadata=True)


def configure(broker: KafkaBroker, topic: str, configs: dict[str, str]) -> None:
    with whole_admin(broker.parts.clients) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)])


def configs_of(broker: KafkaBroker, topic: str) -> dict[str, str]:
    with whole_admin(broker.parts.clients) as admin:
        found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    return {name: setting["value"] for name, setting in found["topic"][topic].items()}
