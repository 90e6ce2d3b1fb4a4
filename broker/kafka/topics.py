"""Creates the topics of a namespace, and looks at the settings of those that exist."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from threading import Event

from dramatiq.errors import BrokerConnectionError

from ..errors import KafkaUnavailable, NotAuthorized, TopicMisconfigured
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
from .rights import Rights, denied_topics
from .single_flight import SingleFlight
from .topic_names import DEAD_LETTER_SUFFIX, LANES_SUFFIX, TopicNames
from .topic_policies import CLEANUP_POLICY, MAX_MESSAGE_BYTES, RECHECK_S, Role, TopicPolicies, limit_for

logger = logging.getLogger(__name__)

#: How long it may take to find Kafka for a question that can go without an answer.
LOOK_UP_TIMEOUT_S = 2.0
#: A record that seems too large for its topic is compared with a limit that is no older.
MAX_LIMIT_AGE_S = 1.0
DEAD_LETTER_RETENTION_MS = 30 * 24 * 3600 * 1000
#: Tombstones in the delayed topic must outlive the longest absence of a forwarder that remembers its offset.
DELAYED_TOMBSTONE_RETENTION_MS = 24 * 3600 * 1000
#: Kafka compacts whole segments, and never the one it writes to, by default up to 1 GiB and a week old.
DELAYED_SEGMENT_BYTES = 64 * 1024 * 1024
DELAYED_SEGMENT_MS = 3600 * 1000
#: Kafka deletes whole segments, once their last record has been kept for ``retention.ms``. With its default
#: of a week for a segment, done work would outlive by that the offsets that say it is done.
QUEUE_SEGMENT_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class TopicLayout:
    """What a topic that does not exist yet is created with."""

    partitions: int
    replication_factor: int
    retention_ms: int


class Topics(TopicNames):
    """The topics of a namespace: creates those that are missing, and leaves those that exist as they are."""

    def __init__(self, clients: Clients, layout: TopicLayout, *, namespace: str = "") -> None:
        super().__init__(namespace)
        self._clients = clients
        self._layout = layout
        self._existing: set[str] = set()
        self._asked_for: set[str] = set()
        self._seen: set[str] = set()
        self._policies = TopicPolicies(clients.bootstrap_servers, self._role_of)
        self._attempts = SingleFlight()

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
        """Create those of ``topics`` that do not exist, and check the settings of those that do.

        What several threads ask for at the same time, a worker's consumers at its boot, is created with one
        request.

        Parameters:
          beside: Topics that are checked when they exist, and not created.
          for_reading: Nothing is to be written there: settings that lose messages are logged, not raised.
          right: What is wanted there, for the error when a topic may not even be seen; READ by default when
            it is for reading, and else DESCRIBE.
          deadline_s: Of ``clock.monotonic_s()``, also to find Kafka; by default ASK_TIMEOUT_S from now, and
            as long as any client may take to find it.
          unless: Once it is set, nothing is waited for.

        Raises:
          KafkaUnavailable: When Kafka does not answer until then, or refuses to create one.
          NotAuthorized: When this client may not see one, or may not create it.
          TopicMisconfigured: When the settings of one lose messages for certain.
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
            self.say(refusal)

    def _create_asked_for(
        self,
        wanted: set[str],
        beside: set[str],
        right: str,
        deadline_s: float | None,
        unless: Event | None,
    ) -> BrokerConnectionError | None:
        """Create ``wanted``, and what other threads wait to create meanwhile.

        Returns:
          Kafka's refusal of one that is wanted. It is raised only where that one is.
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
        return create(wanted - self._existing)  # what was refused may be one of theirs, who will hear of it

    def refusals(self, topics: Iterable[str]) -> dict[str, TopicMisconfigured]:
        """Why some of ``topics``, which were ensured, may not be written to."""
        return self._policies.refusals(topics)

    def say(self, refusal: TopicMisconfigured) -> None:
        """Log, once in a process, why a topic may not be written to."""
        self._policies.say(refusal)

    def _is_refused_for_now(self, topics: set[str]) -> bool:
        """Whether nothing new can be said yet: what is refused was looked at a moment ago."""
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
        """Look ``topics`` up, and create those that are missing.

        Parameters:
          gone: Takes those that were there before.
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
            queues = {topic for topic in missing if self._role_of(topic)[0] is Role.QUEUE}
            self._create(admin, queues)
            self._policies.look(admin, present | queues, new=queues)
            # With limits that their queue's messages fit into, which only the queue's topic tells.
            self._create(admin, missing - queues)
            if missing - queues:
                self._policies.look(admin, missing - queues, new=missing - queues)
        self._seen |= present | missing
        self._existing.update(present | missing)
        self._existing.difference_update(self._policies.refusals(self._existing.copy()))

    def check_again(self, *, unless: Event) -> None:
        """Look at the settings of the topics that are in use, and log which of them lose messages now. Those
        are not written to until they are mended.

        Parameters:
          unless: Once it is set, nothing is waited for.

        Raises:
          KafkaUnavailable, NotAuthorized: When Kafka does not answer.
        """
        known = self._policies.known & self._existing

        def look() -> None:
            with self._clients.admin() as admin:
                self._policies.look(admin, _present(admin, set(), known))

        if known:
            doing = f"The settings of the topics {sorted(known)} could not be read"
            self._clients.ask(look, doing, unless=unless)
        refusals = self._policies.refusals(known)
        self._existing.difference_update(refusals)
        for refusal in refusals.values():
            self.say(refusal)

    def limit_of(self, topic: str) -> int | None:
        """The largest record, or batch of records, that a topic took when it was looked at last; None when
        Kafka has not said. It costs nothing.
        """
        return self._policies.limits.get(topic)

    def max_message_bytes(self, topic: str, *, max_age_s: float = MAX_LIMIT_AGE_S) -> int | None:
        """The same, and asked for when what is known of it is older."""
        if self._policies.age_s(topic) < max_age_s:
            return self.limit_of(topic)

        def look() -> None:
            with self._clients.admin() as admin:
                self._policies.look(admin, [topic])

        try:
            until_s = clock.monotonic_s() + LOOK_UP_TIMEOUT_S
            self._clients.ask(look, f"The settings of {topic!r} could not be read", deadline_s=until_s)
        except BrokerConnectionError:
            return self.limit_of(topic)
        self._existing.difference_update(self._policies.refusals([topic]))
        return self.limit_of(topic)

    def forget(self, topics: Iterable[str]) -> None:
        """Look ``topics`` up again the next time: one of them may have been deleted."""
        self._existing.difference_update(topics)

    def note_gone(self, topic: str) -> None:
        """Say that a topic, which was ensured, does not exist any more; it is looked up the next time."""
        self.forget([topic])
        logger.warning(
            "The topic %r is gone: somebody has deleted it, with what it held. Its next use creates it "
            "again.", topic,
        )  # fmt: skip

    def look_again(self, topic: str, *, deadline_s: float) -> None:
        """Create a topic again that Kafka does not know any more; see :meth:`ensure`."""
        self.forget([topic])
        self.ensure([topic], deadline_s=deadline_s)

    def _create(self, admin: AdminClient, topics: Collection[str]) -> None:
        specs = {
            topic: {
                "num_partitions": self._layout.partitions,
                "replication_factor": self._layout.replication_factor,
                "configs": self._configs(topic),
            }
            for topic in sorted(topics)
        }
        if not specs:
            return
        try:
            answer = admin.create_topics(specs, raise_errors=False)
        except RuntimeError as e:  # kafka-python's, when the controller has changed twice
            raise NotControllerError(str(e)) from e
        for found in answer["topics"]:
            topic, error = found["name"], for_code(found["error_code"])
            if error is TopicAuthorizationFailedError:
                raise self._clients.translated(
                    TopicAuthorizationFailedError({topic}),
                    f"The topic {topic!r} does not exist, and could not be created",
                    Rights(on_topic="CREATE"),
                )
            # Another process may have created one between our look and our request; theirs is respected.
            if found["error_code"] != 0 and error is not TopicAlreadyExistsError:
                raise error(f"{topic}: {found.get('error_message') or 'it could not be created'}")
        admin.wait_for_topics(list(specs))

    def _configs(self, topic: str) -> dict[str, str]:
        # Kafka's clock stamps the records. By a producer's, retention would delete what one sends whose clock
        # is behind, and Kafka would refuse what one sends whose clock is an hour ahead.
        return {"message.timestamp.type": "LogAppendTime", **self._limits(topic)}

    def _limits(self, topic: str) -> dict[str, str]:
        role, queue_topic = self._role_of(topic)
        if role is Role.QUEUE:
            retention_ms = self._layout.retention_ms
            segment_ms = retention_ms if 0 < retention_ms < QUEUE_SEGMENT_MS else QUEUE_SEGMENT_MS
            return {"retention.ms": str(retention_ms), "segment.ms": str(segment_ms)}
        limit = str(limit_for(role, self._policies.largest_limit(queue_topic)))
        if role is Role.DEAD_LETTERS:
            return {"retention.ms": str(DEAD_LETTER_RETENTION_MS), MAX_MESSAGE_BYTES: limit}
        return {
            CLEANUP_POLICY: "compact",
            "delete.retention.ms": str(DELAYED_TOMBSTONE_RETENTION_MS),
            "segment.bytes": str(DELAYED_SEGMENT_BYTES),
            "segment.ms": str(DELAYED_SEGMENT_MS),
            "max.compaction.lag.ms": str(DELAYED_SEGMENT_MS),
            MAX_MESSAGE_BYTES: limit,
        }

    def _role_of(self, topic: str) -> tuple[Role, str | None]:
        """What a topic is for, and whose messages come there: the topic of a queue, or None for all."""
        if topic == self.delayed:
            return Role.DELAYED, None
        for suffix, role in ((DEAD_LETTER_SUFFIX, Role.DEAD_LETTERS), (LANES_SUFFIX, Role.LANES)):
            if topic.endswith(suffix):
                return role, topic.removesuffix(suffix)
        return Role.QUEUE, topic


def _is_refusal(error: BrokerConnectionError) -> bool:
    """Whether Kafka was reached, and does not create one of the topics. It says nothing of others."""
    cause = error.__cause__
    return isinstance(error, NotAuthorized) or (
        isinstance(cause, BrokerResponseError) and not cause.retriable
    )


def _present(admin: AdminClient, topics: set[str], beside: set[str]) -> set[str]:
    """Those of ``topics`` and ``beside`` that exist.

    Raises:
      KafkaError: When it cannot be told of one of ``topics``: this client may not see it, say.
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
