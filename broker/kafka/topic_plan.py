"""The topics and rights that an application needs, compared with those of a cluster. Pure.

For clusters whose administrators create the topics, so that applications create nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from .operations import Operations
from .rights import Right, command_list
from .topic_layout import TopicLayout
from .topic_policies import MAX_MESSAGE_BYTES, Role
from .topic_states import TopicState
from .topics import Topics


class ClientKind(StrEnum):
    """The kinds of programs that use an application's topics.

    WEB: A process that sends messages, as a web server.
    WORKER: A worker process.
    OPERATOR: Someone who counts, redrives, replays, flushes, cancels, pauses, and looks at everything.
    CONSOLE: A program that looks at everything and changes nothing, as the command line for a dashboard.
    """

    WEB = "web"
    WORKER = "worker"
    OPERATOR = "operator"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True)
class PlannedRight:
    """A right that a client needs.

    Attributes:
      operation: ``"READ"``, for example.
      kind: ``"topic"`` or ``"group"``.
      name: The topic or the group.
      is_optional: Whether everything works without it but the check of the settings, schedules, or the
        distinction of purged records from lost ones.
    """

    client: ClientKind
    operation: str
    kind: str
    name: str
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class TopicDifference:
    """A difference between a planned topic and the one of the cluster.

    Attributes:
      subject: ``"topic"`` when it is missing, ``"partitions"``, ``"replication"``, or the name of a setting.
      planned, found: The values; ``found`` is empty when there is none, or when it may not be read.
      command: The command that brings it about; empty when it takes more than one.
    """

    topic: str
    subject: str
    planned: str
    found: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class PlannedTopic:
    """A topic that an application needs.

    Attributes:
      name: Its name.
      role: Its role, such as ``"queue"`` or ``"dead letters"``.
      queue_name: The queue to which it belongs; None for a topic of the whole namespace.
      partitions, replication_factor, settings: Its properties when it is created. A ``replication_factor`` of
        None is the default of the cluster.
      exists: Whether the cluster has it.
      differences: The differences from it.
    """

    name: str
    role: str
    queue_name: str | None
    partitions: int
    replication_factor: int | None
    settings: Mapping[str, str]
    exists: bool
    differences: tuple[TopicDifference, ...]


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """The topics and the rights that an application needs.

    Attributes:
      topics: The topics of each queue, and then those of the namespace.
      rights: The least rights of each kind of client, on topics that exist.
      servers: Kafka's servers, for the commands.
    """

    topics: tuple[PlannedTopic, ...]
    rights: tuple[PlannedRight, ...]
    servers: tuple[str, ...]
    layout: TopicLayout

    @property
    def missing(self) -> tuple[PlannedTopic, ...]:
        """The topics that the cluster does not have."""
        return tuple(topic for topic in self.topics if not topic.exists)

    @property
    def differences(self) -> tuple[TopicDifference, ...]:
        """The differences of all topics."""
        return tuple(difference for topic in self.topics for difference in topic.differences)

    def as_found(self, *, partitions: bool = False, retention: bool = False) -> TopicPlan:
        """The same without differences in what nobody has planned: a caller that does not know the
        application has the defaults of this broker for its values.

        Parameters:
          partitions: Whether fewer partitions are as planned.
          retention: Whether any retention of the queues is as planned.
        """

        def is_planned(topic: PlannedTopic, difference: TopicDifference) -> bool:
            if difference.subject == "partitions" and partitions:
                return not difference.command
            is_of_queue = topic.role == Role.QUEUE.value and difference.subject in (
                "retention.ms",
                "segment.ms",
            )
            return not (is_of_queue and retention and difference.subject in ("retention.ms", "segment.ms"))

        topics = [
            replace(topic, differences=tuple(d for d in topic.differences if is_planned(topic, d)))
            for topic in self.topics
        ]
        return replace(self, topics=tuple(topics))

    def topic_commands(self) -> list[str]:
        """The commands that create the missing topics, and correct the others."""
        return [difference.command for difference in self.differences if difference.command]

    def acl_commands(self, principals: Mapping[str, str] | None = None) -> list[str]:
        """The commands that grant the rights.

        Parameters:
          principals: The Kafka user of each kind of client; by default the user has the name of the kind.
        """
        names = dict(principals or {})
        found = []
        for client in ClientKind:
            rights = [Right(r.operation, r.kind, r.name) for r in self.rights if r.client is client]
            options = {"bootstrap_servers": self.servers, "sasl_plain_username": names.get(client, client)}
            found += command_list(rights, options)
        return found


def plan_topics(
    topics: Topics,
    queue_names: Sequence[str],
    states: Iterable[TopicState],
    *,
    group_id: str,
    servers: Sequence[str],
    layout: TopicLayout,
    clients: Collection[ClientKind] = tuple(ClientKind),
) -> TopicPlan:
    """The plan of some queues.

    Parameters:
      states: The topics of the cluster.
    """
    found = {state.name: state for state in states}
    server = ",".join(servers)
    planned = tuple(
        _topic(name, queue_name, topics, found.get(name), layout, server)
        for name, queue_name in _names(topics, queue_names)
    )
    rights = tuple(right for client in clients for right in _rights(client, topics, queue_names, group_id))
    return TopicPlan(planned, rights, tuple(servers), layout)


def names_of(topics: Topics, queue_names: Sequence[str]) -> list[str]:
    """The topics that the plan of some queues has."""
    return [name for name, _ in _names(topics, queue_names)]


def _names(topics: Topics, queue_names: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for queue_name in queue_names:
        yield topics.queue(queue_name), queue_name
        yield topics.dead_letters(queue_name), queue_name
        yield topics.lanes(queue_name), queue_name
    for name in topics.of_namespace():
        yield name, None


def _topic(
    name: str,
    queue_name: str | None,
    topics: Topics,
    found: TopicState | None,
    layout: TopicLayout,
    server: str,
) -> PlannedTopic:
    role, queue_topic = topics.role_of(name)
    spec = layout.spec(role, topics.largest_limit(queue_topic))
    planned = PlannedTopic(
        name,
        role.value,
        queue_name,
        spec["num_partitions"],
        layout.replication_factor,
        spec["configs"],
        found is not None,
        (),
    )
    differences = _missing(planned, server) if found is None else _differences(planned, role, found, server)
    return PlannedTopic(
        name,
        role.value,
        queue_name,
        planned.partitions,
        planned.replication_factor,
        planned.settings,
        planned.exists,
        tuple(differences),
    )


def _missing(planned: PlannedTopic, server: str) -> Iterator[TopicDifference]:
    settings = " ".join(f"--config {name}={value}" for name, value in sorted(planned.settings.items()))
    copies = (
        "" if planned.replication_factor is None else f"--replication-factor {planned.replication_factor} "
    )
    command = (
        f"kafka-topics.sh --bootstrap-server {server} --create --topic {planned.name} --partitions "
        f"{planned.partitions} {copies}{settings}"
    )
    yield TopicDifference(planned.name, "topic", planned.role, "", command)


def _differences(
    planned: PlannedTopic, role: Role, found: TopicState, server: str
) -> Iterator[TopicDifference]:
    name = planned.name
    if found.partitions < planned.partitions:
        command = (
            f"kafka-topics.sh --bootstrap-server {server} --alter --topic {name} "
            f"--partitions {planned.partitions}"
        )
        yield TopicDifference(name, "partitions", str(planned.partitions), str(found.partitions), command)
    if role in (Role.WORKERS, Role.CONTROL, Role.SCHEDULES) and found.partitions > planned.partitions:
        # Kafka removes no partition.
        yield TopicDifference(name, "partitions", str(planned.partitions), str(found.partitions))
    copies = planned.replication_factor
    if copies is not None and found.replication is not None and found.replication < copies:
        # It takes an assignment of replicas to nodes: kafka-reassign-partitions.sh.
        yield TopicDifference(name, "replication", str(copies), str(found.replication))
    for setting, value in sorted(planned.settings.items()):
        there = found.settings.get(setting, "")
        if not found.settings or _is_as_planned(setting, value, there):
            continue
        command = (
            f"kafka-configs.sh --bootstrap-server {server} --alter --entity-type topics "
            f"--entity-name {name} --add-config {_quoted(setting, value)}"
        )
        yield TopicDifference(name, setting, value, there, command)


def _is_as_planned(setting: str, planned: str, found: str) -> bool:
    if setting == MAX_MESSAGE_BYTES and found:
        return int(found) >= int(planned)
    return {part.strip() for part in planned.split(",")} == {part.strip() for part in found.split(",")}


def _quoted(setting: str, value: str) -> str:
    """kafka-configs.sh takes a list of values in brackets."""
    return f"{setting}=[{value}]" if "," in value else f"{setting}={value}"


def _rights(
    client: ClientKind, topics: Topics, queue_names: Sequence[str], group_id: str
) -> Iterator[PlannedRight]:
    needed: dict[Right, bool] = {}
    for queue_name in queue_names:
        operations = Operations(topics, queue_name, topics.group(group_id, queue_name))
        for right in _RIGHTS[client](operations):
            needed.setdefault(right, False)
        for rights in _OPTIONAL_RIGHTS[client]:
            for right in rights(operations):
                needed.setdefault(right, True)
    for right, is_optional in needed.items():
        # READ and WRITE include DESCRIBE.
        others = {Right(one, right.kind, right.name) for one in ("READ", "WRITE")}
        if right.operation == "DESCRIBE" and others & needed.keys():
            continue
        assert right.name is not None
        yield PlannedRight(client, right.operation, right.kind, right.name, is_optional)


_RIGHTS = {
    ClientKind.WEB: Operations.sending,
    ClientKind.WORKER: Operations.working_and_reporting,
    ClientKind.OPERATOR: Operations.operating,
    ClientKind.CONSOLE: Operations.observing,
}
_OPTIONAL_RIGHTS: Mapping[ClientKind, Sequence[Callable[[Operations], list[Right]]]] = {
    ClientKind.WEB: (),
    ClientKind.WORKER: (Operations.firing_schedules, Operations.checking),
    ClientKind.OPERATOR: (Operations.changing_schedules, Operations.checking),
    ClientKind.CONSOLE: (Operations.seeing_schedules, Operations.auditing, Operations.checking),
}
