"""The settings of a topic that lose messages, and their remedies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from ..errors import TopicMisconfigured
from ..process import clock
from .errors import BrokerResponseError
from .protocol import AdminClient

logger = logging.getLogger(__name__)

CLEANUP_POLICY = "cleanup.policy"
MAX_MESSAGE_BYTES = "max.message.bytes"
RETENTION_MS = "retention.ms"
RETENTION_BYTES = "retention.bytes"

#: A dead letter holds its message (escaped or base64 when undecodable) and a traceback, so its topic takes
#: records of four times the size that a queue's topic takes by default (Kafka's message.max.bytes, 1,048,588
#: bytes).
MAX_DEAD_LETTER_BYTES = 4 * 1_048_588
#: The bytes for the headers of a message in another topic than its queue's.
HEADER_ROOM_BYTES = 64 * 1024
#: The default of message.max.bytes, 1,048,588, and the bytes of the headers: a message that fits its queue's
#: topic fits here, too.
MAX_DELAYED_BYTES = 1_048_588 + HEADER_ROOM_BYTES
#: The bytes that a dead letter needs beside its message when its texts are at their shortest.
DEAD_LETTER_ROOM_BYTES = 4_096
#: A shorter retention of a queue counts as a mistake.
SHORT_RETENTION_MS = 3_600_000
#: The same for dead letters, which wait for a person: over a long weekend.
SHORT_DEAD_LETTER_RETENTION_MS = 3 * 24 * 3600 * 1000
#: The remedy for one, when the application itself asks for such a retention.
DEFAULT_RETENTION_MS = 7 * 24 * 3600 * 1000
#: The interval of the checks of a refused topic, and so the time until a correction is noticed.
RECHECK_S = 0.5
#: The time for which a node may not know a topic that another node has just created.
DESCRIBE_TRIES = 3
DESCRIBE_GAP_S = 0.1

Settings = Mapping[str, str]


class Role(Enum):
    """The role of a topic."""

    QUEUE = "queue"
    DEAD_LETTERS = "dead letters"
    DELAYED = "delayed"
    LANES = "lanes"
    WORKERS = "workers"
    HISTORY = "history"
    CONTROL = "control"
    SCHEDULES = "schedules"


#: The limit with which this broker creates a topic, unless its queue takes more. A smaller limit than a
#: queue's is refused only below that: earlier versions have created such topics on clusters with a larger
#: default.
OWN_LIMITS = {
    Role.DEAD_LETTERS: MAX_DEAD_LETTER_BYTES,
    Role.DELAYED: MAX_DELAYED_BYTES,
    Role.LANES: MAX_DELAYED_BYTES,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A setting that loses messages, or may.

    Attributes:
      effect: The effect of the setting in Kafka.
      remedy: The value that corrects it.
      certain: Whether messages are certainly lost, so that no message may be sent there.
    """

    setting: str
    value: str
    effect: str
    remedy: str
    certain: bool = True

    def __str__(self) -> str:
        return f"{self.setting}={self.value}, {self.effect}"


def limit_for(role: Role, queue_limit: int | None) -> int:
    """The ``max.message.bytes`` that a topic beside a queue is created with."""
    return max(OWN_LIMITS[role], (queue_limit or 0) + HEADER_ROOM_BYTES)


def findings(
    role: Role,
    settings: Settings,
    queue_limits: Mapping[str, int],
    retention_ms: int = DEFAULT_RETENTION_MS,
) -> list[Finding]:
    """Judge the settings of one topic. A setting that is absent may not be read, and is not judged.

    Parameters:
      queue_limits: ``max.message.bytes`` of the queues whose messages the topic holds, as far as it is known.
      retention_ms: The retention with which this broker creates the topic: the remedy for a short one.
    """
    if role is Role.WORKERS:
        return []  # a lost report is replaced by the next one
    found = [_cleanup(role, settings), _limit(role, settings, queue_limits)]
    if role in (Role.QUEUE, Role.DEAD_LETTERS):
        found += [_retention(role, settings, retention_ms), _retention_bytes(settings)]
    return [finding for finding in found if finding is not None]


def _cleanup(role: Role, settings: Settings) -> Finding | None:
    if CLEANUP_POLICY not in settings:
        return None
    policy = settings[CLEANUP_POLICY]
    kinds = {kind.strip() for kind in policy.split(",")}
    if role in (Role.QUEUE, Role.DEAD_LETTERS, Role.HISTORY):
        if "compact" not in kinds:
            return None
        effect = "by which Kafka refuses records without a key and keeps only the last one of each key"
        return Finding(CLEANUP_POLICY, policy, effect, "delete")
    if "delete" not in kinds:
        return None
    if settings.get(RETENTION_MS) == "-1" and settings.get(RETENTION_BYTES) == "-1":
        return None
    effect = "by which Kafka deletes what waits there for longer than the topic's retention"
    return Finding(CLEANUP_POLICY, policy, effect, "compact")


def _limit(role: Role, settings: Settings, queue_limits: Mapping[str, int]) -> Finding | None:
    if role not in OWN_LIMITS or MAX_MESSAGE_BYTES not in settings or not queue_limits:
        return None
    limit = int(settings[MAX_MESSAGE_BYTES])
    queue, needed = max(queue_limits.items(), key=lambda item: item[1])
    remedy = str(limit_for(role, needed))
    if limit < needed:
        effect = f"which is less than the {needed:,} bytes that the queue's topic {queue!r} takes"
        return Finding(MAX_MESSAGE_BYTES, str(limit), effect, remedy, certain=limit < OWN_LIMITS[role])
    if role is Role.DEAD_LETTERS and limit < needed + DEAD_LETTER_ROOM_BYTES:
        effect = (
            f"into which a dead letter of the largest messages that {queue!r} takes ({needed:,} bytes) "
            "does not fit"
        )
        return Finding(MAX_MESSAGE_BYTES, str(limit), effect, remedy, certain=False)
    return None


def _retention(role: Role, settings: Settings, remedy_ms: int) -> Finding | None:
    value = settings.get(RETENTION_MS)
    short_ms = SHORT_DEAD_LETTER_RETENTION_MS if role is Role.DEAD_LETTERS else SHORT_RETENTION_MS
    if value is None or not 0 <= int(value) < short_ms:
        return None
    effect = "after which Kafka deletes a message, done or not"
    if role is Role.DEAD_LETTERS:
        effect = "after which Kafka deletes a dead letter, whether anybody has seen it or not"
    if 0 <= remedy_ms < SHORT_RETENTION_MS:
        remedy_ms = DEFAULT_RETENTION_MS
    return Finding(RETENTION_MS, value, effect, str(remedy_ms), certain=False)


def _retention_bytes(settings: Settings) -> Finding | None:
    value = settings.get(RETENTION_BYTES)
    if value is None or int(value) < 0:
        return None
    effect = "by which Kafka deletes the oldest messages of a partition that grows larger, done or not"
    return Finding(RETENTION_BYTES, value, effect, "-1", certain=False)


def command(servers: Iterable[str], topic: str, found: Iterable[Finding]) -> str:
    """The command that corrects the settings of a topic."""
    configs = ",".join(f"{finding.setting}={finding.remedy}" for finding in found)
    return (
        f"kafka-configs.sh --bootstrap-server {','.join(servers)} --alter --entity-type topics "
        f"--entity-name {topic} --add-config {configs}"
    )


class TopicPolicies:
    """The settings of the topics that this process has checked, and the findings about them.

    Parameters:
      servers: Kafka's servers, for the commands.
      role_of: The role of a topic, and the topic of the queue whose messages it holds (None: all queues).
      retention_of: The retention in ms with which a queue's topic, or its dead letters', is created.

    Attributes:
      limits: ``max.message.bytes`` by topic, where Kafka has returned it.
    """

    def __init__(
        self,
        servers: Iterable[str],
        role_of: Callable[[str], tuple[Role, str | None]],
        retention_of: Callable[[Role], int],
    ) -> None:
        self.limits: dict[str, int] = {}
        self._servers = list(servers)
        self._role_of = role_of
        self._retention_of = retention_of
        self._settings: dict[str, Settings] = {}
        self._looked_s: dict[str, float] = {}
        self._refused: dict[str, TopicMisconfigured] = {}
        self._logged: set[str] = set()
        self._unreadable_logged = False

    def check(self, admin: AdminClient, topics: Iterable[str], *, new: Collection[str] = ()) -> None:
        """Request the settings of ``topics``, which exist, and check them.

        Parameters:
          new: The topics that were just created.

        Raises:
          KafkaError: When Kafka does not answer.
        """
        wanted = set(topics)
        if self._refused:  # a correction may concern another topic
            wanted |= self._settings.keys()
        described = _describe(admin, wanted)
        for _ in range(DESCRIBE_TRIES - 1):
            if all(described.get(topic) for topic in new):
                break
            clock.sleep(DESCRIBE_GAP_S)
            described |= _describe(admin, wanted)
        now_s = clock.monotonic_s()
        for topic in wanted:
            self._note(topic, described.get(topic) or {}, now_s)
        self._say_unreadable(topic for topic in wanted if not self._settings[topic])
        self._judge()

    def findings_of(self, topic: str) -> list[Finding]:
        """The findings about a topic that was checked."""
        role, queue_topic = self._role_of(topic)
        limits = {} if role is Role.QUEUE else self._queue_limits(queue_topic)
        return findings(role, self._settings[topic], limits, self._retention_of(role))

    def settings_of(self, topic: str) -> Settings:
        """The settings of a topic that was checked; empty when they may not be read."""
        return self._settings[topic]

    @property
    def known(self) -> set[str]:
        """The topics that were checked."""
        return set(self._settings.copy())

    def is_refused(self, topic: str) -> bool:
        return topic in self._refused

    def refusals(self, topics: Iterable[str]) -> dict[str, TopicMisconfigured]:
        """The known reasons why some of ``topics`` may not be used."""
        if not self._refused:
            return {}
        return {topic: self._refused[topic] for topic in topics if topic in self._refused}

    def largest_limit(self, queue_topic: str | None) -> int | None:
        """The largest record that a queue's topic, or (None) any queue's topic, takes; None when unknown."""
        return max(self._queue_limits(queue_topic).values(), default=None)

    def age_s(self, topic: str) -> float:
        """The age of the settings of a topic."""
        return clock.monotonic_s() - self._looked_s.get(topic, float("-inf"))

    def log_refusal(self, refusal: TopicMisconfigured) -> None:
        """Log once why a topic is refused, where no caller gets an exception."""
        self._say(logging.ERROR, str(refusal))

    def _note(self, topic: str, settings: Settings, now_s: float) -> None:
        self._settings[topic], self._looked_s[topic] = settings, now_s
        if MAX_MESSAGE_BYTES in settings:
            self.limits[topic] = int(settings[MAX_MESSAGE_BYTES])
        else:
            self.limits.pop(topic, None)

    def _judge(self) -> None:
        """Check all known topics: the limit of one may be too small for another one's messages."""
        refused: dict[str, TopicMisconfigured] = {}
        for topic in self._settings:
            found = self.findings_of(topic)
            certain = [finding for finding in found if finding.certain]
            if certain:
                refused[topic] = TopicMisconfigured(topic, self._sentence(topic, certain))
            for doubtful in (finding for finding in found if not finding.certain):
                self._say(logging.WARNING, self._doubt(topic, doubtful))
        self._refused = refused

    def _queue_limits(self, queue_topic: str | None) -> dict[str, int]:
        """The limits, as far as they are known, of a queue's topic, or (None) of all queues' topics."""
        if queue_topic is not None:
            return {queue_topic: self.limits[queue_topic]} if queue_topic in self.limits else {}
        return {topic: size for topic, size in self.limits.items() if self._role_of(topic)[0] is Role.QUEUE}

    def _sentence(self, topic: str, found: list[Finding]) -> str:
        faults = ", and ".join(map(str, found))
        remedy = command(self._servers, topic, found)
        return (
            f"The topic {topic!r} has {faults}: messages would be lost there until this corrects it: {remedy}"
        )

    def _doubt(self, topic: str, found: Finding) -> str:
        remedy = command(self._servers, topic, [found])
        return f"The topic {topic!r} has {found}. Unless this is meant, correct it: {remedy}"

    def _say_unreadable(self, topics: Iterable[str]) -> None:
        unreadable = sorted(topics)
        if unreadable and not self._unreadable_logged:
            self._unreadable_logged = True
            logger.warning(
                "The settings of the topics %s cannot be read, so nobody has checked that they keep messages "
                "(it takes the right DESCRIBE_CONFIGS on them). Further ones are not named.", unreadable,
            )  # fmt: skip

    def _say(self, level: int, text: str) -> None:
        if text not in self._logged:
            self._logged.add(text)
            logger.log(level, "%s", text)


def _describe(admin: AdminClient, topics: Iterable[str]) -> dict[str, dict[str, str]]:
    """The settings of topics; empty for a topic whose settings may not be read."""
    try:
        described = admin.topic_settings(sorted(topics))
    except BrokerResponseError as e:
        if e.retriable:
            raise
        return {}  # not allowed, or not known to this version of Kafka
    return {
        topic: {name: value for name, value in found.items() if value is not None}
        for topic, found in described.items()
    }
