"""Creates the topics of a namespace, and checks the settings of existing ones."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from threading import Event
from typing import Any

from dramatiq.errors import BrokerConnectionError

from ..errors import KafkaUnavailable, NotAuthorized, ParameterRefused, TopicMisconfigured
from ..process import clock
from .clients import ASK_TIMEOUT_S, Clients
from .errors import (
    BrokerResponseError,
    NotControllerError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from .protocol import AdminClient
from .rights import Right, Rights, denied_topics
from .single_flight import SingleFlight
from .topic_layout import TopicLayout
from .topic_names import DEAD_LETTER_SUFFIX, LANES_SUFFIX, TopicNames
from .topic_policies import RECHECK_S, Role, TopicPolicies
from .topic_states import TopicState, existing, read_topic_states

logger = logging.getLogger(__name__)

#: The deadline of a request whose answer is dispensable.
LOOK_UP_TIMEOUT_S = 2.0
#: The greatest age of the limit with which a record is compared that seems too large for its topic.
MAX_LIMIT_AGE_S = 1.0


class Topics(TopicNames):
    """The topics of a namespace. Missing ones are created, existing ones are never changed."""

    def __init__(self, clients: Clients, layout: TopicLayout, *, namespace: str = "") -> None:
        super().__init__(namespace)
        self._clients = clients
        self._layout = layout
        self._existing: set[str] = set()
        self._asked_for: set[str] = set()
        self._seen: set[str] = set()
        self._policies = TopicPolicies(clients.bootstrap_servers, self.role_of, layout.retention_of)
        self._attempts = SingleFlight()
        self._nodes: int | None = None
        self._single_copies_logged = False

    def ensure(
        self,
        topics: Iterable[str],
        *,
        beside: Iterable[str] = (),
        for_reading: bool = False,
        right: str | None = None,
        deadline_s: float | None = None,
        unless: Event | None = None,
    ) -> None:
        """Create the missing ones of ``topics``, and check the settings of the others.

        Several threads that call this at the same time, as a worker's consumers at its boot, share one
        request.

        Parameters:
          beside: Topics that are checked when they exist, and not created.
          for_reading: The caller does not write: settings that lose messages are logged, not raised.
          right: The right that the caller needs, for the error when this client may not even see a topic; by
            default READ when ``for_reading``, and otherwise DESCRIBE.
          deadline_s: Of ``clock.monotonic_s()``, for the connection to Kafka as well; by default
            ASK_TIMEOUT_S from now, with the usual timeout of a connection.
          unless: The call stops waiting once it is set.

        Raises:
          KafkaUnavailable: When Kafka does not answer by the deadline, or refuses to create a topic.
          NotAuthorized: When this client may not see a topic, or may not create it.
          TopicMisconfigured: When the settings of a topic certainly lose messages.
        """
        wanted, also = set(topics), set(beside)
        needed = right or ("READ" if for_reading else "DESCRIBE")
        if wanted <= self._existing and also <= self._existing:
            return
        both = wanted | also
        if not self._is_refused_for_now(both):
            by_s = deadline_s or self._clients.asking_until_s or clock.monotonic_s() + ASK_TIMEOUT_S
            self._asked_for |= wanted
            refused = self._attempts.run(
                lambda: self._create_asked_for(wanted, also, needed, deadline_s, unless),
                deadline_s=by_s,
                unless=unless,
            )
            if refused is not None:
                raise refused
        for refusal in self._policies.refusals(both).values():
            if not for_reading:
                raise refusal
            self.log_refusal(refusal)

    def _create_asked_for(
        self,
        wanted: set[str],
        beside: set[str],
        right: str,
        deadline_s: float | None,
        unless: Event | None,
    ) -> BrokerConnectionError | None:
        """Create ``wanted``, and the topics that other threads wait for.

        Returns:
          Kafka's refusal of a topic of ``wanted``. Only the callers that need the topic raise it.
        """
        asked_for, self._asked_for = self._asked_for, set()

        def create(topics: set[str]) -> BrokerConnectionError | None:
            try:
                self._create_missing(
                    topics, beside - self._existing, right=right, deadline_s=deadline_s, unless=unless
                )
            except BrokerConnectionError as e:
                if not _is_refusal(e):
                    raise
                return e
            return None

        missing = wanted - self._existing
        others = asked_for - self._existing - missing
        if missing and others and create(missing | others) is None:
            return None
        # The refused topic may be another thread's, which gets the error itself.
        return create(wanted - self._existing)

    def refusals(self, topics: Iterable[str]) -> dict[str, TopicMisconfigured]:
        """The reasons why some of ``topics``, which were ensured, may not be written to."""
        return self._policies.refusals(topics)

    def log_refusal(self, refusal: TopicMisconfigured) -> None:
        """Log, once in a process, why a topic may not be written to."""
        self._policies.log_refusal(refusal)

    def _is_refused_for_now(self, topics: set[str]) -> bool:
        """Whether the refusals are recent, so that the topics need no check yet."""
        missing = topics - self._existing
        return all(self._policies.is_refused(t) and self._policies.age_s(t) < RECHECK_S for t in missing)

    def _create_missing(
        self,
        topics: set[str],
        beside: set[str],
        *,
        right: str,
        deadline_s: float | None,
        unless: Event | None,
    ) -> None:
        if not topics and not beside:
            return
        gone: set[str] = set()
        try:
            self._clients.ask(
                lambda: self._create_once(topics, beside, gone, right),
                f"The topics {sorted(topics)} could not be looked up or created",
                deadline_s=deadline_s,
                unless=unless,
                rights=Rights(tuple(topics), on_topic=right),
            )
        except KafkaUnavailable as e:
            if not gone:
                raise
            raise KafkaUnavailable(
                f"The topics {sorted(gone)} are gone: somebody has deleted them, with what they held, "
                f"and they could not be created again: {e}"
            ) from (e.__cause__ or e)
        if gone:
            logger.error(
                "The topics %s were gone: somebody had deleted them, with what they held. They were created "
                "again.", sorted(gone),
            )  # fmt: skip

    def _create_once(self, topics: set[str], beside: set[str], gone: set[str], right: str) -> None:
        """Look ``topics`` up, and create the missing ones.

        Parameters:
          gone: Receives the missing ones that existed before.
        """
        with self._clients.admin() as admin:
            try:
                present = _present(admin, topics, beside)
            except TopicAuthorizationFailedError as e:
                unseen = (
                    f"The topics {sorted(denied_topics(e))} do not exist, or this client may not see them"
                )
                raise self._clients.translated(e, unseen, Rights(on_topic=right)) from e
            missing = topics - present
            gone |= missing & self._seen
            queues = {topic for topic in missing if self.role_of(topic)[0] is Role.QUEUE}
            self._create(admin, queues)
            self._policies.check(admin, present | queues, new=queues)
            # Their limits depend on the limit of the queue's topic, which is known by now.
            self._create(admin, missing - queues)
            if missing - queues:
                self._policies.check(admin, missing - queues, new=missing - queues)
        self._seen |= present | missing
        self._existing.update(present | missing)
        self._existing.difference_update(self._policies.refusals(self._existing.copy()))

    def check_again(self, *, unless: Event) -> None:
        """Check the settings of the topics in use, and log which of them lose messages now. No message is
        sent to these until their settings are corrected.

        Parameters:
          unless: The call stops waiting once it is set.

        Raises:
          KafkaUnavailable, NotAuthorized: When Kafka does not answer.
        """
        known = self._policies.known & self._existing

        def check() -> None:
            with self._clients.admin() as admin:
                self._policies.check(admin, _present(admin, set(), known))

        if known:
            doing = f"The settings of the topics {sorted(known)} could not be read"
            self._clients.ask(check, doing, unless=unless)
        refusals = self._policies.refusals(known)
        self._existing.difference_update(refusals)
        for refusal in refusals.values():
            self.log_refusal(refusal)

    def queue_names(self, declared: Collection[str], *, wanted: Iterable[str] = ()) -> list[str]:
        """The queues of this namespace whose topics exist and are visible, by name; see ``queues_among``.

        Parameters:
          declared, wanted: Queues that are known by name. Each is visible, or does not exist.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not see one of them, or nothing of this namespace.
        """
        return self._queues_among(self._names(), declared, wanted)

    def _queues_among(
        self, names: Collection[str], declared: Collection[str] = (), wanted: Iterable[str] = ()
    ) -> list[str]:
        """``queues_among`` of a list of all topics, where Kafka leaves out those that may not be seen."""
        found = self.queues_among(names, declared=declared)
        # Each client of a queue may see this topic. If this one may not, the list tells nothing.
        if not found and self._denied([self.delayed]):
            of_namespace = f" of the namespace {self._namespace!r}" if self._namespace else ""
            raise self._clients.refusal(
                f"The queues{of_namespace} could not be listed",
                Right("DESCRIBE", "topic", self._namespace, is_prefix=True),
            )
        known = {name for name in {*declared, *wanted} if self._may_be_queue(name)}
        unseen = {self.queue(queue_name) for queue_name in known}.difference(names)
        if unseen and (denied := self._denied(unseen)):
            raise self._clients.refusal(
                f"The topics {sorted(denied)} do not exist, or this client may not see them",
                *(Right("DESCRIBE", "topic", topic) for topic in sorted(denied)),
            )
        return found

    def _denied(self, topics: Collection[str]) -> set[str]:
        """Those of ``topics`` of which Kafka does not tell this client whether they exist."""

        def read() -> set[str]:
            with self._clients.admin() as admin:
                try:
                    existing(admin, topics)
                except TopicAuthorizationFailedError as e:
                    return denied_topics(e)
                return set()

        return self._clients.ask(read, f"The topics {sorted(topics)} could not be looked up")

    def states(self) -> list[TopicState]:
        """The topics of this namespace's queues, and those beside them, as they are, by name.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not describe one of them, or see any of a queue.
        """
        names = set(self._names())
        wanted = names & set(self.of_namespace())
        for queue_name in self._queues_among(names):
            wanted |= names & {*self.of_worker(queue_name), self.lanes(queue_name)}

        return self.states_of(wanted)

    def states_of(self, topics: Collection[str]) -> list[TopicState]:
        """The existing ones of ``topics`` as they are, by name; raises as :meth:`states`."""

        def read() -> list[TopicState]:
            with self._clients.admin() as admin:
                servers = self._clients.bootstrap_servers
                return read_topic_states(admin, topics, self._policies, servers, self.role_of)

        found = self._clients.ask(
            read, "The topics could not be described", rights=Rights(tuple(topics), on_topic="DESCRIBE")
        )
        return sorted(found, key=lambda topic: topic.name)

    def _names(self) -> Collection[str]:
        def read() -> Collection[str]:
            with self._clients.admin() as admin:
                return admin.topic_names()

        return self._clients.ask(read, "The topics could not be listed")

    @property
    def layout(self) -> TopicLayout:
        """The properties of the topics that this broker creates."""
        return self._layout

    def fitted(self, layout: TopicLayout) -> TopicLayout:
        """A layout with the replication that this cluster suggests, unless one was chosen.

        Raises:
          ParameterRefused: When the chosen one takes more nodes than there are.
          KafkaUnavailable: When Kafka does not answer.
        """

        def read() -> int:
            with self._clients.admin() as admin:
                return admin.node_count()

        nodes = self._clients.ask(read, "The nodes of the cluster could not be read")
        if (copies := layout.replication_factor or 0) > nodes:
            raise ParameterRefused(
                f"replication_factor={copies}: the cluster has {nodes} node(s), and each copy takes one"
            )
        return layout.fitted(nodes)

    def warn_of_single_copies(self, topics: Collection[str]) -> None:
        """Log, once in a process, which of ``topics`` have one copy on a cluster of several nodes. Without an
        answer from Kafka, the next call looks.
        """
        if self._single_copies_logged or self._nodes == 1:
            return

        def read() -> set[str]:
            with self._clients.admin() as admin:
                self._nodes = admin.node_count()
                return set() if self._nodes == 1 else _with_one_copy(admin, topics)

        try:
            until_s = clock.monotonic_s() + LOOK_UP_TIMEOUT_S
            single = self._clients.ask(
                read, "The copies of the topics could not be counted", deadline_s=until_s
            )
        except BrokerConnectionError as e:
            logger.debug("%s", e)
            return
        if single and not self._single_copies_logged:
            self._single_copies_logged = True
            logger.warning(
                "The topics %s have one copy on a cluster of %d nodes: they are unavailable while its node "
                "is, and a lost disk loses their messages. Raise it with kafka-reassign-partitions.sh (three "
                "copies, with min.insync.replicas=2). Further topics are not named.",
                sorted(single), self._nodes,
            )  # fmt: skip

    def create(self, topics: Collection[str], layout: TopicLayout) -> None:
        """Create missing topics, the queues' topics first: the limits of the others depend on theirs.

        Raises:
          KafkaUnavailable: When Kafka does not answer, or refuses to create one.
          NotAuthorized: When this client may not create one.
        """
        queues = {topic for topic in topics if self.role_of(topic)[0] is Role.QUEUE}

        def make() -> None:
            with self._clients.admin() as admin:
                present = _present(admin, set(topics), set())
                for some in (queues - present, set(topics) - queues - present):
                    if some:
                        self._create(admin, some, layout)
                        self._policies.check(admin, some, new=some)

        self._clients.ask(
            make,
            f"The topics {sorted(topics)} could not be created",
            rights=Rights(tuple(topics), on_topic="CREATE"),
        )

    def largest_limit(self, queue_topic: str | None) -> int | None:
        """The largest record that a queue's topic, or (None) any queue's topic, takes; None when unknown."""
        return self._policies.largest_limit(queue_topic)

    def limit_of(self, topic: str) -> int | None:
        """The largest record, or batch of records, that a topic accepted at its last check; None when it is
        not known. No request is made.
        """
        return self._policies.limits.get(topic)

    def max_message_bytes(self, topic: str, *, max_age_s: float = MAX_LIMIT_AGE_S) -> int | None:
        """The same, read from Kafka when the last check is older than ``max_age_s``."""
        if self._policies.age_s(topic) < max_age_s:
            return self.limit_of(topic)

        def check() -> None:
            with self._clients.admin() as admin:
                self._policies.check(admin, [topic])

        try:
            until_s = clock.monotonic_s() + LOOK_UP_TIMEOUT_S
            self._clients.ask(check, f"The settings of {topic!r} could not be read", deadline_s=until_s)
        except BrokerConnectionError:
            return self.limit_of(topic)
        self._existing.difference_update(self._policies.refusals([topic]))
        return self.limit_of(topic)

    def forget(self, topics: Iterable[str]) -> None:
        """Let the next use look ``topics`` up again: one of them may have been deleted."""
        self._existing.difference_update(topics)

    def note_gone(self, topic: str) -> None:
        """Log that a topic, which was ensured, does not exist any more. Its next use looks it up."""
        self.forget([topic])
        logger.warning(
            "The topic %r is gone: somebody has deleted it, with what it held. Its next use creates it "
            "again.", topic,
        )  # fmt: skip

    def recreate(self, topic: str, *, deadline_s: float) -> None:
        """Create a topic again that does not exist any more; see :meth:`ensure`."""
        self.forget([topic])
        self.ensure([topic], deadline_s=deadline_s)

    def _create(self, admin: AdminClient, topics: Collection[str], layout: TopicLayout | None = None) -> None:
        if not topics:
            return
        layout = layout or self._layout
        if layout.replication_factor is None:
            layout = layout.fitted(admin.node_count())
        specs = {topic: self._spec(topic, layout) for topic in sorted(topics)}
        try:
            answer = admin.create_topics(specs, raise_errors=False)
        except RuntimeError as e:  # of kafka-python, when the controller has changed twice
            raise NotControllerError(str(e)) from e
        for found in answer["topics"]:
            topic, error = found["name"], for_code(found["error_code"])
            if error is TopicAuthorizationFailedError:
                raise self._clients.translated(
                    TopicAuthorizationFailedError({topic}),
                    f"The topic {topic!r} does not exist, and could not be created",
                    Rights(on_topic="CREATE"),
                )
            # Another process may have created the topic since the look-up; that topic is respected.
            if found["error_code"] != 0 and error is not TopicAlreadyExistsError:
                raise error(f"{topic}: {found.get('error_message') or 'it could not be created'}")
        admin.wait_for_topics(list(specs))

    def _spec(self, topic: str, layout: TopicLayout) -> dict[str, Any]:
        role, queue_topic = self.role_of(topic)
        return layout.spec(role, self._policies.largest_limit(queue_topic))

    def role_of(self, topic: str) -> tuple[Role, str | None]:
        """The role of a topic, and the topic of the queue whose messages it holds; None for all queues."""
        if topic == self.delayed:
            return Role.DELAYED, None
        if topic == self.workers:
            return Role.WORKERS, None
        if topic == self.history:
            return Role.HISTORY, None
        if topic == self.control:
            return Role.CONTROL, None
        if topic == self.schedules:
            return Role.SCHEDULES, None
        for suffix, role in ((DEAD_LETTER_SUFFIX, Role.DEAD_LETTERS), (LANES_SUFFIX, Role.LANES)):
            if topic.endswith(suffix):
                return role, topic.removesuffix(suffix)
        return Role.QUEUE, topic


def _is_refusal(error: BrokerConnectionError) -> bool:
    """Whether Kafka answered, and refuses to create one of the topics; the others may be possible."""
    cause = error.__cause__
    return isinstance(error, NotAuthorized) or (
        isinstance(cause, BrokerResponseError) and not cause.retriable
    )


def _with_one_copy(admin: AdminClient, topics: Collection[str]) -> set[str]:
    return {
        found["name"]
        for found in admin.describe_topics(sorted(topics))
        if any(len(partition["replica_nodes"]) == 1 for partition in found.get("partitions", ()))
    }


def _present(admin: AdminClient, topics: set[str], beside: set[str]) -> set[str]:
    """The existing ones of ``topics`` and ``beside``.

    Raises:
      KafkaError: When Kafka does not answer whether one of ``topics`` exists, for instance because this
        client may not see it.
    """
    present: set[str] = set()
    denied: set[str] = set()
    for found in admin.describe_topics(sorted(topics | beside)):
        error = for_code(found.get("error_code", 0))
        if found.get("error_code", 0) == 0:
            present.add(found["name"])
        elif error is TopicAuthorizationFailedError:
            denied.add(found["name"])
        elif error is not UnknownTopicOrPartitionError and found["name"] in topics:
            raise error(found["name"])
    if denied & topics:
        raise TopicAuthorizationFailedError(denied & topics)
    return present
