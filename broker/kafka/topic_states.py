"""The topics of a namespace as they are, for operators: partitions, replicas, settings and findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError, for_code
from .protocol import AdminClient
from .topic_policies import Role, TopicPolicies, command


@dataclass(frozen=True, slots=True)
class TopicFinding:
    """A setting of a topic that loses messages, or may.

    Attributes:
      setting, value: The setting.
      effect: Its effect in Kafka.
      remedy: The value that corrects it.
      is_certain: Whether messages are certainly lost. The broker sends none to the topic then.
      command: The command that corrects it.
    """

    setting: str
    value: str
    effect: str
    remedy: str
    is_certain: bool
    command: str


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is.

    Attributes:
      name: Its name.
      role: Its role in the namespace, such as ``"queue"`` or ``"dead letters"``.
      partitions: The number of its partitions.
      replication: The number of replicas of each partition; None when Kafka does not tell.
      leaderless: The partitions without a leader.
      under_replicated: The partitions with fewer replicas in sync than replicas.
      settings: Its settings; empty when they may not be read.
      findings: The settings that lose messages, or may.
    """

    name: str
    role: str
    partitions: int
    replication: int | None
    leaderless: tuple[int, ...]
    under_replicated: tuple[int, ...]
    settings: Mapping[str, str]
    findings: tuple[TopicFinding, ...]


def read_topic_states(
    admin: AdminClient, topics: Iterable[str], policies: TopicPolicies, servers: Iterable[str], role_of: Any
) -> list[TopicState]:
    """Read topics. Those that do not exist are left out.

    Raises:
      TopicAuthorizationFailedError: When this client may not see one of them.
      KafkaError: When Kafka does not answer.
    """
    described = existing(admin, topics)
    policies.check(admin, described)
    return [
        _state_of(name, role_of(name)[0], found, policies, list(servers)) for name, found in described.items()
    ]


def existing(admin: AdminClient, topics: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """The descriptions of those of ``topics`` that exist, by name; raises as :func:`read_topic_states`."""
    answers = {found["name"]: found for found in admin.describe_topics(sorted(topics))}
    errors = {name: for_code(found.get("error_code", 0)) for name, found in answers.items()}
    denied = {name for name, error in errors.items() if error is TopicAuthorizationFailedError}
    if denied:
        raise TopicAuthorizationFailedError(denied)
    for name, error in errors.items():
        if error is not UnknownTopicOrPartitionError and answers[name].get("error_code", 0) != 0:
            raise error(name)
    return {name: found for name, found in answers.items() if found.get("error_code", 0) == 0}


def _state_of(
    name: str, role: Role, found: Mapping[str, Any], policies: TopicPolicies, servers: list[str]
) -> TopicState:
    partitions = found["partitions"]
    replicas = [len(p["replica_nodes"]) for p in partitions if p.get("replica_nodes")]
    return TopicState(
        name,
        role.value,
        len(partitions),
        min(replicas, default=None),
        leaderless=tuple(p["partition_index"] for p in partitions if p.get("leader_id", 0) < 0),
        under_replicated=tuple(
            p["partition_index"]
            for p in partitions
            if len(p.get("isr_nodes") or ()) < len(p.get("replica_nodes") or ())
        ),
        settings=dict(policies.settings_of(name)),
        findings=tuple(
            TopicFinding(
                finding.setting,
                finding.value,
                finding.effect,
                finding.remedy,
                finding.certain,
                command(servers, name, [finding]),
            )
            for finding in policies.findings_of(name)
        ),
    )
