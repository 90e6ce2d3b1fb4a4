"""Creates the dead letters of a worker, and calls the hooks of messages that no worker thread rejects.

Dramatiq's worker threads call the hooks of a message that they reject. No worker thread rejects a message
that kills its workers, that no actor can run, or whose retry Kafka refuses for good; nor a delayed or keyed
message that its queue refuses. A caller may wait for the result of each of these messages, so this module
calls their hooks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from dramatiq.broker import MessageProxy
from dramatiq.message import Message, get_encoder
from dramatiq.middleware import Middleware, MiddlewareError
from dramatiq.results import Results

from ..complete.completer import PendingDeadLetter, Settled
from ..deliveries.delivery import Delivery, Origin
from ..error_text import MAX_TRACEBACK_CHARS, excerpt, shorten_notes
from ..errors import DeadLetterNotMade
from ..kafka.errors import KafkaError
from ..kafka.topics import Topics
from ..process import clock
from ..process.one_line import one_line
from .dead_letter import DeadLetter, read_dead_letter
from .middleware import DeadLetters
from .record_format import dead_letter_record, shortened

logger = logging.getLogger(__name__)

#: The maximum characters of the task's own error in the text of a refused retry.
MAX_FAILURE_CHARS = 500


class Hooks(Protocol):
    """The part of a Dramatiq broker that calls middleware."""

    @property
    def middleware(self) -> list[Middleware]: ...

    @property
    def actors(self) -> Mapping[str, Any]: ...

    @property
    def queues(self) -> Mapping[str, Any]: ...

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None: ...

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None: ...


#: Takes the message id, the names of the actor and of the queue, the option ``retries`` and the error of a
#: dead letter that no worker thread caused.
NoteDeadLetter = Callable[[str, str, str, object, BaseException], None]


def _note_nothing(
    message_id: str, actor_name: str, queue_name: str, retries: object, error: BaseException
) -> None: ...


class DeadLetterWriter:
    """Puts dead letters into the outboxes of deliveries. It does not publish them.

    Parameters:
      note: Is told of the dead letters of messages that no worker thread rejects.
    """

    def __init__(self, topics: Topics, hooks: Hooks, note: NoteDeadLetter = _note_nothing) -> None:
        self._topics = topics
        self._hooks = hooks
        self._note = note

    def add(self, delivery: Delivery, error: BaseException | None) -> None:
        """Put a delivery's dead letter into its outbox, and the ``on_dead_letter`` calls into its follow-ups.

        A delivery that already has a dead letter keeps it.

        Raises:
          DeadLetterNotMade: When the dead letter cannot be created. The delivery must not be completed then.
        """
        if delivery.dead_letter is not None:
            return
        shorten_notes(delivery.options, MAX_TRACEBACK_CHARS)
        try:
            record = dead_letter_record(
                self._topics,
                queue_name=delivery.queue_name,
                origin=delivery.origin,
                raw=delivery.raw,
                error=error,
                message=None if delivery.unrun else delivery._message,
                headers=delivery.headers,
            )
            dead_letter = read_dead_letter(delivery.queue_name, record.value, record.headers)
        except Exception as e:
            # Dramatiq repeats a nack only after a connection error.
            raise DeadLetterNotMade(
                f"The dead letter of {delivery.origin} could not be created: {e!r}"
            ) from e
        delivery.dead_letter = record
        delivery.outbox.append(record)
        delivery.follow_ups.extend(self._callbacks(dead_letter))

    def give_up(self, delivery: Delivery, error: BaseException) -> None:
        """Reject a delivery as a worker thread would: call its ``before_nack`` hooks, add its dead letter,
        and call its ``after_nack`` hooks once Kafka has the dead letter.

        It runs as the preparation of the delivery, on a thread on which application code may be slow.

        Raises:
          DeadLetterNotMade: When the dead letter cannot be created.
        """
        delivery.fail()
        delivery.stuff_exception(error)
        is_named = not delivery.unrun or _name(delivery)
        last, delivery.follow_ups = delivery.follow_ups, []
        try:
            if is_named:
                self._call_before_nack(delivery)
            self.add(delivery, error)
            self._note(
                delivery.message_id,
                delivery.actor_name,
                delivery.queue_name,
                delivery.options.get("retries"),
                error,
            )
            if is_named:
                delivery.follow_ups.append(partial(self._call_after_nack, delivery, error))
        finally:
            delivery.follow_ups += last

    def replace_refused(self, refused: Settled, error: BaseException) -> None:
        """Replace an outbox that Kafka refuses for good by a dead letter with the error.

        Kafka would refuse another dead letter, too. So a dead letter in the outbox is shortened, and held
        until its topic takes it.
        """
        logger.error("The records that follow from %s cannot be published: %r", refused, error)
        if isinstance(refused, PendingDeadLetter):
            refused.outbox[:] = [shortened(self._topics, record) for record in refused.outbox]
        elif (dead_letter := refused.dead_letter) is not None:
            refused.dead_letter = shortened(self._topics, dead_letter)
            refused.outbox[refused.outbox.index(dead_letter)] = refused.dead_letter
        else:
            if refused.is_retried:
                error = after_failure(error, refused.options)
            refused.preparation = partial(self.give_up, refused, error)
            refused.drop_outbox()

    def undelivered(
        self,
        queue_name: str,
        *,
        message_id: str,
        origin: Origin | None,
        raw: bytes,
        headers: Sequence[tuple[str, bytes]],
        error: BaseException,
        then: Callable[[], None] | None = None,
    ) -> PendingDeadLetter:
        """The dead letter of a delayed or keyed message that its queue refuses for good.

        Parameters:
          message_id: The message's id for the log, and for the dead letter of an unreadable message.
          origin: The origin of its first record in its queue, when that is known.
          raw: The encoded message.
          headers: The headers of the record that its queue refuses.
          then: The last follow-up. When it raises, the call is repeated.
        """
        logger.error(
            "The message %s of %r is dead-lettered: %s", one_line(message_id), queue_name, one_line(error)
        )
        record = dead_letter_record(
            self._topics,
            queue_name=queue_name,
            origin=origin,
            raw=raw,
            error=error,
            headers=headers,
            message_id=message_id,
        )
        dead_letter = read_dead_letter(queue_name, record.value, record.headers)
        message = dead_letter.message
        self._note(
            message_id,
            "" if message is None else message.actor_name,
            queue_name,
            None if message is None else message.options.get("retries"),
            error,
        )
        follow_ups: list[Callable[[], None]] = [
            *self._callbacks(dead_letter),
            partial(self._call_hooks, queue_name, raw, error),
        ]
        if then is not None:
            follow_ups.append(then)
        return PendingDeadLetter(queue_name, [record], follow_ups)

    def _callbacks(self, dead_letter: DeadLetter) -> Iterable[Callable[[], None]]:
        return [
            partial(middleware.on_dead_letter, dead_letter)
            for middleware in self._hooks.middleware
            if isinstance(middleware, DeadLetters) and middleware.on_dead_letter is not None
        ]

    def _call_hooks(self, queue_name: str, raw: bytes, error: BaseException) -> None:
        """Call the hooks of a message that was not delivered here and whose dead letter is in Kafka."""
        message = named_message(raw, queue_name=queue_name)
        if message is not None:
            proxy = MessageProxy(message)
            proxy.fail()
            proxy.stuff_exception(error)
            self._call_before_nack(proxy)
            self._call_after_nack(proxy, error)

    def _call_before_nack(self, message: MessageProxy) -> None:
        try:
            self._hooks.emit_before("nack", message)
        except MiddlewareError:
            logger.critical(
                "A before_nack hook refused to reject %s; it is dead-lettered anyway.", message, exc_info=True
            )

    def _call_after_nack(self, message: MessageProxy, error: BaseException) -> None:
        self._hooks.emit_after("nack", message)
        if message.actor_name not in self._hooks.actors:
            self._store_failure(message, error)

    def _store_failure(self, message: MessageProxy, error: BaseException) -> None:
        """Store the failure of an unknown actor's message.

        The actor's options decide whether results are stored, and Results stores none of an unknown actor. So
        the failure is stored unless an option of the message forbids it.
        """
        options = message.options
        for middleware in self._hooks.middleware:
            if isinstance(middleware, Results) and options.get("store_results", True):
                try:
                    ttl_ms = options.get("result_ttl", middleware.result_ttl)
                    middleware.backend.store_exception(message, error, ttl_ms)
                except Exception:
                    logger.critical("The failure of %s could not be stored.", message, exc_info=True)


def _name(delivery: Delivery) -> bool:
    """Read the message of an undecodable record; False when the record does not name it."""
    message = named_message(delivery.raw, queue_name=delivery.queue_name)
    if message is not None:
        delivery.become(message)
    return message is not None


def after_failure(refusal: BaseException, options: Mapping[str, Any]) -> BaseException:
    """The error of a message whose retry is refused: the refusal, with the failure of its task.

    Parameters:
      options: The message's options, with the notes about that failure. Dramatiq has dropped the error itself
        (``clear_exception`` in dramatiq/worker.py).
    """
    traceback = str(options.get("traceback") or "").strip()
    failure = str(options.get("last_error") or traceback.rpartition("\n")[2])
    if failure and isinstance(refusal, KafkaError):
        text = refusal.args[0] if refusal.args else type(refusal).__name__
        refusal = type(refusal)(f"{text}; the task had failed: {excerpt(failure, MAX_FAILURE_CHARS)}")
    if traceback:
        refusal.add_note(f"The task had failed:\n{traceback}")
    return refusal


def named_message(raw: bytes, *, queue_name: str) -> Message[Any] | None:
    """The message of a queue that a record holds, as far as it can be read.

    Returns:
      None when the record names no message, since no caller can wait for it, or a message of another queue,
      since a caller waits for that queue's result.
    """
    try:
        fields = get_encoder().decode(raw)
    except Exception:  # noqa: BLE001 - an encoder of the application's own may raise anything
        return None
    if not isinstance(fields, dict) or fields.get("queue_name") != queue_name:
        return None
    actor_name, message_id = fields.get("actor_name"), fields.get("message_id")
    if not (isinstance(actor_name, str) and actor_name and isinstance(message_id, str) and message_id):
        return None
    sent_ms = fields.get("message_timestamp")
    return Message(
        queue_name,
        actor_name,
        args=_if(tuple | list, fields.get("args"), ()),
        kwargs=_if(dict, fields.get("kwargs"), {}),
        options=_if(dict, fields.get("options"), {}),
        message_id=message_id,
        message_timestamp=_if(int | float, sent_ms, clock.wall_ms()),
    )


def _if(kind: Any, value: Any, otherwise: Any) -> Any:
    return value if isinstance(value, kind) else otherwise
