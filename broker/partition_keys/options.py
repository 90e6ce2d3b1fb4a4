"""The options ``partition_key`` and ``key_order``, and the keys that are refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from ..errors import PartitionKeyRefused, UniqueRefused
from .limit_options import CONCURRENCY, RATE, check_limits, limit_of, set_limits
from .limits import HEADER as LIMIT_HEADER
from .record_format import MAX_KEY_BYTES, lane_header
from .unique import HEADER as UNIQUE_HEADER
from .unique_options import UNIQUE, UNIQUE_BY, check_unique, set_unique, unique_of

KEY = "partition_key"
ORDER = "key_order"
RELAXED, ORDERED = "relaxed", "ordered"


class PartitionKeys(Middleware):
    """Messages with one ``partition_key`` run one after another, in the order in which Kafka has them.

    ``actor.send_with_options(args=(7,), partition_key="user-7")``, or for every message of an actor
    ``@dramatiq.actor(partition_key=lambda user_id: f"user-{user_id}")``: called with the message's arguments
    when the message is sent; None means no key. The option of a message takes precedence, also when it is
    None.

    ``@dramatiq.actor(key_order=...)`` sets the behaviour of the key's later messages while a retry of this
    actor waits: ``"relaxed"``, the default, lets them pass; ``"ordered"`` keeps them behind it.

    ``@dramatiq.actor(key_concurrency=..., key_rate=...)`` limits the messages of a key: see
    ``docs/key-limits.md``.

    ``@dramatiq.actor(unique_by=..., unique=...)`` makes messages unique: see ``docs/unique.md``.

    Raises:
      PartitionKeyRefused: For a key that is not a text, is empty, or is longer than 255 bytes in UTF-8.
      KeyLimitRefused: For a ``key_concurrency`` or ``key_rate`` that cannot be.
      UniqueRefused: For ``unique_by``, ``unique`` or ``unique_key`` that cannot be.
    """

    @property
    def actor_options(self) -> set[str]:
        return {KEY, ORDER, UNIQUE, UNIQUE_BY, CONCURRENCY, RATE}

    def before_declare_actor(self, broker: Broker, actor: Actor[Any, Any]) -> None:
        make_key, key_order = actor.options.get(KEY), actor.options.get(ORDER)
        is_limited = any(actor.options.get(name) is not None for name in (CONCURRENCY, RATE))
        is_constant = is_limited and isinstance(make_key, str)
        if is_constant and (reason := why_refused(make_key)) is not None:
            raise PartitionKeyRefused(f"The actor {actor.actor_name!r} is refused: {reason}.")
        if make_key is not None and not callable(make_key) and not is_constant:
            raise PartitionKeyRefused(
                f"The partition_key= of actor {actor.actor_name!r} is {make_key!r}. Pass a function that "
                "makes the key of a message's arguments, or give each message its own in send_with_options()."
            )
        if key_order not in (None, RELAXED, ORDERED):
            raise PartitionKeyRefused(
                f"The key_order= of actor {actor.actor_name!r} is {key_order!r}: pass 'relaxed' or 'ordered'."
            )
        check_unique(actor, has_partition_key=make_key is not None)
        check_limits(
            actor,
            key=make_key,
            is_ordered=key_order == ORDERED,
            is_unique=actor.options.get(UNIQUE_BY) is not None,
        )

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        options = message.options
        if ORDER in options:
            raise PartitionKeyRefused(
                f"key_order= was given to one message of {message.actor_name!r}; declare it on the actor."
            )
        actor = broker.actors.get(message.actor_name)
        # A retry has the options of its message.
        unique_key = None if isinstance(message, MessageProxy) else set_unique(message, actor)
        if unique_key is not None:
            if options.get(KEY) not in (None, unique_key):
                raise UniqueRefused(
                    f"A message of {message.actor_name!r} was not sent: it has a partition_key= beside a "
                    "unique key, which decides about the partition; give it one of the two."
                )
            options[KEY] = unique_key
        elif KEY not in options:
            make_key = None if actor is None else actor.options.get(KEY)
            key = make_key if make_key is None or isinstance(make_key, str) else _made(make_key, message)
            if key is not None:
                options[KEY] = key
        if not isinstance(message, MessageProxy):
            is_ordered = actor is not None and actor.options.get(ORDER) == ORDERED
            set_limits(message, actor, is_ordered=is_ordered)
        if KEY not in options:
            return
        if (reason := why_refused(options[KEY])) is not None:
            raise PartitionKeyRefused(f"A message of {message.actor_name!r} was not sent: {reason}.")


def why_refused(key: object) -> str | None:
    """The reason why a key is refused; None when it is accepted."""
    if key is None:
        return None
    if not isinstance(key, str):
        return f"its partition_key is {type(key).__name__}, not text; write it as one: str(...)"
    if not key:
        return "its partition_key is empty; leave the option out where there is no order to keep"
    try:
        length = len(key.encode())
    except UnicodeEncodeError as e:
        return f"its partition_key is not text that UTF-8 can write: {e}"
    if length > MAX_KEY_BYTES:
        return (
            f"its partition_key has {length} bytes, {MAX_KEY_BYTES} are allowed; take what names the thing "
            "itself (an id), or a hash of it"
        )
    return None


def key_of(message: Message[Any]) -> bytes | None:
    """The key of a message's record; None when the message has no valid partition key."""
    key = message.options.get(KEY)
    return key.encode(errors="replace") if key and isinstance(key, str) else None


def with_key_headers(
    message: Message[Any],
    headers: Iterable[tuple[str, bytes]],
    *,
    is_retry: bool = False,
    is_again: bool = False,
) -> tuple[bytes | None, list[tuple[str, bytes]]]:
    """The key and the headers of a message's record.

    Parameters:
      headers: Its other headers.
      is_retry: Whether the record is a retry of its message.
      is_again: Whether an operator sends the message again.
    """
    with_own = [header for header in headers if header[0] not in (UNIQUE_HEADER, LIMIT_HEADER)]
    key = key_of(message)
    if key is not None:
        with_own.append(lane_header(key))
        unique = unique_of(message, is_retry=is_retry, is_again=is_again)
        if unique is not None:
            with_own.append(unique.header)
        if (limit := limit_of(message)) is not None:
            with_own.append(limit.header)
    return key, with_own


def _made(make_key: Any, message: Message[Any]) -> Any:
    try:
        return make_key(*message.args, **message.kwargs)
    except Exception as e:
        raise PartitionKeyRefused(
            f"A message of {message.actor_name!r} was not sent: the actor's partition_key= failed on its "
            f"arguments: {e!r}."
        ) from e
