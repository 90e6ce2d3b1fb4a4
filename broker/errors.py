"""All errors of this broker, in one tree.

::

    BrokerConnectionError (Dramatiq)   Kafka was unreachable, did not answer in time, or refused
    ├── ConnectionFailed (Dramatiq)
    │   └── KafkaUnavailable           no server answered, or none had the answer
    ├── NotAuthorized                  Kafka answered that this client lacks a right; the text names it
    ├── EnqueueFailed                  some messages were not acknowledged; `.failures` names them
    ├── TopicMisconfigured             a topic's settings lose messages: nothing is sent to it
    └── DeadLetterNotMade              a dead letter could not be created: its message stays incomplete
    ValueError
    ├── ParameterRefused               a parameter is out of its range, or contradicts another one
    ├── UnreadableResolution           a record of a redrive or a discard is damaged, or of a later version
    ├── InvalidQueueName               Kafka allows no topic of that name
    ├── RetryPolicyRefused             a tenacity policy that cannot run durably
    ├── PartitionKeyRefused            a key that cannot name a lane
    ├── KeyLimitRefused                a key_concurrency= or key_rate= that cannot be
    ├── UniqueRefused                  a unique_by=, unique= or unique_key= that cannot be
    ├── HardTimeLimitRefused           a hard time limit that is no time span, or is too short
    ├── ExpiryRefused                  an expiry that is no time span or no instant
    └── UnknownWorker                  no worker of that id has reported
    TimeoutError
    └── CancelUndecided                no worker has decided about a cancel yet (``broker/delays``)
    RuntimeError
    └── NoCurrentTask                  current_task was used where no task runs
    Retry (Dramatiq)
    └── NotNow                         raised by actors: no attempt was made, run the message again
    SkipMessage (Dramatiq)
    └── MessageExpired                 the stored result of a message that expired before it ran
    MessageFailed                      raised by a join that fails fast: a message failed in another process
    └── MessageOfUnknownActor          the same, of a message that no worker could run; also an ActorNotFound
    TemporaryError                     raised by actors: worth another attempt
    PermanentError                     raised by actors: never worth another attempt
    PoisonMessage                      in dead letters: the message killed its worker repeatedly
    InvalidMessage                     in dead letters: the record is not a message of this queue
    └── UnknownActor                   in dead letters: its actor is not declared; also an ActorNotFound
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from dramatiq.errors import ActorNotFound, BrokerConnectionError, BrokerError, ConnectionFailed, Retry
from dramatiq.middleware import Interrupt, MiddlewareError, SkipMessage

from .error_advice import advice
from .kafka.errors import (
    InvalidTopicError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

#: Errors of the record itself: the same bytes would fail again.
RECORD_ERRORS: tuple[type[Exception], ...] = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    InvalidTopicError,
    TypeError,
    ValueError,
)


class KafkaUnavailable(ConnectionFailed):
    """No Kafka server answered within the timeout, or none let this client in.

    Attributes:
      advice: The remedy, when the cause is known.
    """

    advice: str | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]


class NotAuthorized(BrokerConnectionError):
    """Kafka is reachable and denies an operation to this client.

    The text names the operation, the resource and the right. Once the right is granted, the operation
    succeeds.
    """

    advice = "Enqueue again once the right is granted"

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]


class EnqueueFailed(BrokerConnectionError):
    """Kafka did not acknowledge some messages before the deadline.

    A failed message may still arrive with the same ``message_id``: if the acknowledgement timed out, its
    record may be in the log already.

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

    @property
    def is_final(self) -> bool:
        """Whether Kafka has none of the failed messages for certain, and would refuse each of them again."""
        return all(isinstance(reason, RECORD_ERRORS) for reason in self.failures.values())


class TopicMisconfigured(BrokerConnectionError):
    """The settings of a topic certainly lose messages. No message is sent to it until they are corrected.

    The text names the topic, the setting, its value, and the command that corrects it. The broker notices the
    correction without a restart.

    Attributes:
      topic: The topic's name.
    """

    advice = "Correct the topic's settings, then enqueue again"

    def __init__(self, topic: str, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]
        self.topic = topic


class ParameterRefused(ValueError):
    """A parameter of a call is out of its range, or contradicts another one. Nothing was done."""


class UnreadableResolution(ValueError):
    """The record of a redrive or a discard is damaged, or of a later version of the broker.

    The state of its dead letters is not known, so none of the partition is read, redriven or discarded.
    """


class UnknownWorker(BrokerError, ValueError):
    """No worker of that id has reported within a day. The text names the workers that have.

    Attributes:
      worker_id: The id.
    """

    #: The number of workers that the text names.
    NAMED = 20

    def __init__(self, worker_id: str, known: Collection[str]) -> None:
        self.worker_id = worker_id
        there = ", ".join(sorted(known)[: self.NAMED]) or "none"
        more = f" and {len(known) - self.NAMED} more" if len(known) > self.NAMED else ""
        super().__init__(  # type: ignore[no-untyped-call]
            f"No worker {worker_id!r} has reported within a day; those that have: {there}{more}."
        )


class DeadLetterNotMade(MiddlewareError, BrokerConnectionError):
    """The dead letter of a rejected message could not be created, so the message must not be completed.

    A MiddlewareError because Dramatiq swallows every other error of a hook, and a BrokerConnectionError
    because Dramatiq then repeats the nack.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]


class InvalidQueueName(BrokerError, ValueError):
    """The name of the queue, or of its dead-letter topic, is not a legal name of a Kafka topic."""

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]


class RetryPolicyRefused(MiddlewareError, ValueError):
    """An actor's tenacity policy uses a feature that cannot outlive the process.

    A MiddlewareError because Dramatiq swallows every other error during the declaration of an actor.
    """


class Abort(Interrupt):
    """Raised in the thread of a running task whose message was aborted, and in the coroutine of an async one
    as a cancellation. The message is complete then: it has no further attempt and no dead letter.
    """


class HardTimeLimitRefused(MiddlewareError, ValueError):
    """A ``hard_time_limit=`` that is no time span, is not longer than ``time_limit=``, or is of one message.

    A MiddlewareError because Dramatiq swallows every other error during the declaration of an actor.
    """


class ExpiryRefused(MiddlewareError, ValueError):
    """An ``expires_in=`` that is no time span, or an ``expires_at=`` that is no instant. Nothing was sent.

    A MiddlewareError because Dramatiq swallows every other error during the declaration of an actor.
    """


class MessageExpired(SkipMessage):
    """The message was about to run at or after its ``expires_at``. It has not run, and has no dead letter.

    ``Results`` stores it as the failure of the message.
    """


class ScheduleRefused(MiddlewareError, ValueError):
    """A schedule that cannot be: its expression, time zone, interval or policy is impossible.

    A MiddlewareError because Dramatiq swallows every other error during the declaration of an actor.
    """


class ScheduleNotFound(LookupError):
    """There is no schedule of that name."""


class NotNow(Retry):
    """Raise from an actor that could not start, because a service that all its tasks need is unavailable.

    The message goes back to its queue, whatever the actor's policy: at once, or after ``delay`` milliseconds.
    No attempt is counted and nothing is logged. Without a delay, set ``broker.consumption_paused`` first, or
    the message comes back immediately.
    """


class NoCurrentTask(RuntimeError):
    """``current_task`` was used outside of a task."""


class PartitionKeyRefused(MiddlewareError, ValueError):
    """An invalid ``partition_key`` or ``key_order``; nothing was sent.

    A MiddlewareError because Dramatiq swallows every other error of a hook.
    """


class KeyLimitRefused(MiddlewareError, ValueError):
    """An invalid ``key_concurrency`` or ``key_rate``; nothing was sent.

    A MiddlewareError because Dramatiq swallows every other error of a hook.
    """


class UniqueRefused(MiddlewareError, ValueError):
    """An invalid ``unique_by``, ``unique`` or ``unique_key``; nothing was sent.

    A MiddlewareError because Dramatiq swallows every other error of a hook.
    """


class MessageFailed(Exception):
    """A message became a dead letter during a join, and its error is not in this process.

    Attributes:
      message_id: The message's id; None when its record is not a message.
      error_type: The name of the error's class; empty when the message failed without an error.
      error: The text of the error.
      traceback: Its traceback, as text.
    """

    def __init__(self, message_id: str | None, *, error_type: str, error: str, traceback: str) -> None:
        self.message_id = message_id
        self.error_type = error_type
        self.error = error
        self.traceback = traceback
        reason = f"{error_type}: {error}" if error_type else error
        super().__init__(f"The message {message_id} is a dead letter: {reason}")


class MessageOfUnknownActor(MessageFailed, ActorNotFound):
    """A message that a join has waited for is of an actor that its worker does not know."""


class TemporaryError(Exception):
    """Raise from an actor when another attempt may succeed: a connection, a timeout, a lock."""


class PermanentError(Exception):
    """Raise from an actor when no further attempt can succeed: the message is dead-lettered at once."""


class PoisonMessage(Exception):
    """The worker process died or lost its partitions each time it ran the message, as often as the broker
    allows.
    """


class InvalidMessage(Exception):
    """A record that is not a message of the queue it was found in."""


class UnknownActor(InvalidMessage, ActorNotFound):
    """A message of an actor that is not declared in the worker."""

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]


def _named(error: BaseException) -> str:
    """The text of an error with its class. Some texts of kafka-python name the class already."""
    text, name = str(error), type(error).__name__
    return text if name in text else f"{name}: {text}"
