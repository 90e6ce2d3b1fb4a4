"""Every error this broker raises, in one tree.

::

    BrokerConnectionError (Dramatiq)   Kafka could not be reached, did not answer in time, or refused
    ├── ConnectionFailed (Dramatiq)
    │   └── KafkaUnavailable           no server answered, or none had the answer
    ├── NotAuthorized                  Kafka answered that this client lacks a right; the text names it
    ├── EnqueueFailed                  some messages were not acknowledged; `.failures` names them
    ├── TopicMisconfigured             a topic's settings lose messages: nothing is put there
    └── DeadLetterNotMade              a dead letter could not be made: its message stays incomplete
    ValueError
    ├── InvalidQueueName               Kafka cannot hold a topic of that name
    ├── RetryPolicyRefused             a tenacity policy that cannot be run durably
    └── PartitionKeyRefused            a key that no lane can be named by
    TimeoutError
    └── CancelUndecided                no worker has decided about a cancel yet (``broker/delays``)
    Retry (Dramatiq)
    └── NotNow                         raised by actors: no attempt was made, run it again
    MessageFailed                      raised by a join that fails fast: a message failed in another process
    TemporaryError                     raised by actors: worth another attempt
    PermanentError                     raised by actors: never worth another attempt
    PoisonMessage                      in dead letters: the message keeps killing its worker
    InvalidMessage                     in dead letters: the record is no message of this queue
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from dramatiq.errors import BrokerConnectionError, BrokerError, ConnectionFailed, Retry
from dramatiq.middleware import MiddlewareError

from .error_advice import advice
from .kafka.errors import (
    InvalidTopicError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

#: Errors of the record itself: sending the same bytes again can only fail again.
RECORD_ERRORS: tuple[type[Exception], ...] = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    InvalidTopicError,
    TypeError,
    ValueError,
)


class KafkaUnavailable(ConnectionFailed):
    """No Kafka server answered within the time allowed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]


class NotAuthorized(BrokerConnectionError):
    """Kafka can be reached, and does not allow this client what it asked for.

    The text names the operation, the resource and the right. Once that is granted, the same again succeeds.
    """

    advice = "Enqueue again once the right is granted"

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]


class EnqueueFailed(BrokerConnectionError):
    """Kafka did not acknowledge some messages before the deadline.

    A failed message may still arrive: what timed out is the acknowledgement, and the record may be in the log
    already. It then carries the same ``message_id``.

    Attributes:
      failures(dict[str, BaseException]): Why each message was not acknowledged, by message id.
    """

    def __init__(self, failures: Mapping[str, BaseException]) -> None:
        self.failures = dict(failures)
        message_id, reason = next(iter(self.failures.items()))
        first = advice(reason)
        others = Counter(text for text in map(advice, self.failures.values()) if text != first)
        text = (
            f"Kafka did not acknowledge {len(self.failures)} message(s); the first is {message_id}: "
            f"{_named(reason)}. {first}."
        )
        for other, count in others.most_common():
            text += f" For {count} of the others: {other}."
        super().__init__(text)  # type: ignore[no-untyped-call]


class TopicMisconfigured(BrokerConnectionError):
    """A topic has settings that lose messages for certain, so nothing is put there until they are mended.

    Its text names the topic, the setting, its value and the command that mends it. It is noticed without a
    restart when that was done.

    Attributes:
      topic: The topic's name.
    """

    advice = "Mend the topic, then enqueue again"

    def __init__(self, topic: str, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]
        self.topic = topic


class DeadLetterNotMade(MiddlewareError, BrokerConnectionError):
    """A rejected message's dead letter could not be made, so the message must not be completed.

    A MiddlewareError because Dramatiq swallows every other error of a hook, and a BrokerConnectionError
    because Dramatiq then tries the nack again.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]


class InvalidQueueName(BrokerError, ValueError):
    """The queue's name, or that of its dead-letter topic, is not a legal Kafka topic name."""

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]


class RetryPolicyRefused(MiddlewareError, ValueError):
    """An actor's tenacity policy uses something that cannot outlive the process.

    A MiddlewareError because Dramatiq swallows every other error that is raised while an actor is declared.
    """


class NotNow(Retry):
    """Raise from an actor that could not even try, because of what all its tasks need and is away.

    The message goes back to its queue at once, whatever the actor's policy: no attempt is counted and nothing
    is logged. So see to it first that the message does not come straight back: ``broker.consumption_paused``.
    """


class PartitionKeyRefused(MiddlewareError, ValueError):
    """A ``partition_key`` or ``key_order`` that cannot be used; nothing was sent.

    A MiddlewareError because Dramatiq swallows every other error of a hook.
    """


class MessageFailed(Exception):
    """A message that a join has waited for ended as a dead letter, and its error is not in this process.

    Attributes:
      message_id: The message's id; None when its record is no message.
      error_type: The name of the error's class; empty when it has failed without one.
      error: What the error said.
      traceback: Its traceback, as text.
    """

    def __init__(self, message_id: str | None, *, error_type: str, error: str, traceback: str) -> None:
        self.message_id = message_id
        self.error_type = error_type
        self.error = error
        self.traceback = traceback
        reason = f"{error_type}: {error}" if error_type else error
        super().__init__(f"The message {message_id} is a dead letter: {reason}")


class TemporaryError(Exception):
    """Raise from an actor when another attempt may succeed: a connection, a timeout, a lock."""


class PermanentError(Exception):
    """Raise from an actor when no further attempt can succeed: it goes to the dead letters at once."""


class PoisonMessage(Exception):
    """The message's worker process died each time it ran, or could not keep its partitions, as often as the
    broker allows.
    """


class InvalidMessage(Exception):
    """A record that is not a message of the queue it was found in."""


def _named(error: BaseException) -> str:
    """An error with its class, which some of kafka-python's name by themselves."""
    text, name = str(error), type(error).__name__
    return text if name in text else f"{name}: {text}"
