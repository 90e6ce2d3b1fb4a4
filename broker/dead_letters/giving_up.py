"""Gives up a message that no worker thread rejects, and tells those who have to hear it.

Dramatiq's worker threads call the hooks of a message that they reject. A message that kills its workers, one
that nobody here can run, and one whose retry Kafka can never take get no thread, nor does one that waits for
its time or its turn and can never go back to its queue. Somebody may be waiting for their results all the
same.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from dramatiq.broker import MessageProxy
from dramatiq.message import Message, get_encoder
from dramatiq.middleware import MiddlewareError
from dramatiq.results import Results

from ..deliveries.delivery import Delivery
from . import add_dead_letter

if TYPE_CHECKING:
    from ..broker import KafkaBroker


def give_up(broker: KafkaBroker, delivery: Delivery, error: BaseException) -> None:
    """Reject a delivery as a worker thread would: its hooks, its dead letter, and, once Kafka has that, the
    other half of its hooks.

    It is a delivery's preparation, called where application code may take its time.

    Raises:
      DeadLetterNotMade: When its dead letter cannot be made.
    """
    delivery.fail()
    delivery.stuff_exception(error)
    is_named = not delivery.unrun or _name(delivery)
    last, delivery.follow_ups = delivery.follow_ups, []
    try:
        if is_named:
            _call_before_nack(broker, delivery)
        add_dead_letter(broker, delivery, error)
        if is_named:
            delivery.follow_ups.append(partial(_call_after_nack, broker, delivery, error))
    finally:
        delivery.follow_ups += last


def _name(delivery: Delivery) -> bool:
    """Find out which message the record was; False when it does not say."""
    message = named_message(delivery.raw, queue_name=delivery.queue_name)
    if message is not None:
        delivery.become(message)
    return message is not None


def tell(broker: KafkaBroker, queue_name: str, raw: bytes, error: BaseException) -> None:
    """Call the hooks of a message that was not delivered here and has its dead letter."""
    message = named_message(raw, queue_name=queue_name)
    if message is not None:
        proxy = MessageProxy(message)
        proxy.fail()
        proxy.stuff_exception(error)
        _call_before_nack(broker, proxy)
        _call_after_nack(broker, proxy, error)


def _call_before_nack(broker: KafkaBroker, message: MessageProxy) -> None:
    try:
        broker.emit_before("nack", message)
    except MiddlewareError:
        broker.logger.critical(
            "A before_nack refuses that %s is given up, which it is.", message, exc_info=True
        )


def _call_after_nack(broker: KafkaBroker, message: MessageProxy, error: BaseException) -> None:
    broker.emit_after("nack", message)
    if message.actor_name not in broker.actors:
        _store_failure(broker, message, error)


def _store_failure(broker: KafkaBroker, message: MessageProxy, error: BaseException) -> None:
    """Store the failure of an unknown actor's message, which Results takes for one that nobody waits for.

    Its actor says whether results are stored, to those who know it. So it is stored unless the message
    declines.
    """
    options = message.options
    for middleware in broker.middleware:
        if isinstance(middleware, Results) and options.get("store_results", True):
            try:
                ttl_ms = options.get("result_ttl", middleware.result_ttl)
                middleware.backend.store_exception(message, error, ttl_ms)
            except Exception:
                broker.logger.critical("The failure of %s could not be stored.", message, exc_info=True)


def named_message(raw: bytes, *, queue_name: str) -> Message[Any] | None:
    """The message of a queue that a record was meant to be, as far as it can be read.

    None when it does not say which: nobody can wait for it. One that names another queue may be waited for
    there, by somebody who gets it from there.
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
        message_timestamp=_if(int | float, sent_ms, time.time_ns() // 1_000_000),
    )


def _if(kind: Any, value: Any, otherwise: Any) -> Any:
    return value if isinstance(value, kind) else otherwise
