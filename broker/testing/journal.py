"""Notes what was enqueued and what tasks raised, and lets a test assert it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dramatiq.actor import Actor
from dramatiq.errors import RateLimitExceeded, Retry
from dramatiq.message import Message
from dramatiq.middleware import Interrupt, Middleware

if TYPE_CHECKING:
    from ..dead_letters import DeadLetter

#: The errors that a task may raise. Any other is that of the test, such as pytest.fail() or Ctrl-C.
ERRORS_OF_TASKS = (Exception, Interrupt, SystemExit, asyncio.CancelledError)
AnyActor = Actor[..., Any] | str
#: The fields of a message that an assertion may name. Each decides with the message, its delay and what is
#: wanted.
FIELDS: Mapping[str, Callable[[Message[Any], int | None, Any], bool]] = {
    "args": lambda message, _, wanted: tuple(message.args) == tuple(wanted),
    "kwargs": lambda message, _, wanted: message.kwargs == wanted,
    "queue_name": lambda message, _, wanted: message.queue_name == wanted,
    "options": lambda message, _, wanted: wanted.items() <= message.options.items(),
    "delay": lambda _, delay, wanted: _in_ms(wanted) == delay,
}


class Journal(Middleware):
    """Notes the messages that are enqueued, each once, with the delay of its first enqueue.

    Attributes:
      entries: The messages with their delays in ms, by message id, in the order of their first enqueue.
      errors: The errors of tasks since the last drain, but for those that an actor expects (``throws``), and
        for requests of another attempt.
    """

    def __init__(self) -> None:
        self.entries: dict[str, tuple[Message[Any], int | None]] = {}
        self.errors: list[BaseException] = []

    def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        self.entries.setdefault(message.message_id, (message.copy(), delay))

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if exception is None or isinstance(exception, Retry | RateLimitExceeded):
            return
        expected = message.options.get("throws") or broker.actors[message.actor_name].options.get("throws")
        if not (expected and isinstance(exception, expected)):
            self.errors.append(exception)

    def take_errors(self) -> list[BaseException]:
        errors, self.errors = self.errors, []
        return errors

    def raise_foreign(self) -> None:
        """Raise an error that is not a task's, at once."""
        for error in self.errors:
            if not isinstance(error, ERRORS_OF_TASKS):
                self.errors.remove(error)
                raise error

    # Assertions

    def assert_enqueued(self, actor: AnyActor, times: int | None, wanted: Mapping[str, Any]) -> Message[Any]:
        """See ``Kit.assert_enqueued``."""
        found = list(self._matching(actor, wanted))
        if not found or times not in (None, len(found)):
            described = _described(actor, wanted)
            problem = (
                f"no message of {described} was enqueued"
                if times is None
                else f"{times} message(s) of {described} should have been enqueued, and {len(found)} were"
            )
            raise AssertionError(f"{problem}.\n{self._listing()}")
        return found[0]

    def assert_not_enqueued(self, actor: AnyActor, wanted: Mapping[str, Any]) -> None:
        """See ``Kit.assert_not_enqueued``."""
        if any(self._matching(actor, wanted)):
            raise AssertionError(f"a message of {_described(actor, wanted)} was enqueued.\n{self._listing()}")

    def _matching(self, actor: AnyActor, wanted: Mapping[str, Any]) -> Iterator[Message[Any]]:
        if unknown := wanted.keys() - FIELDS.keys():
            raise TypeError(f"unknown fields {sorted(unknown)}; there are {', '.join(FIELDS)}")
        _in_ms(wanted.get("delay"))
        if not isinstance(wanted.get("args", ()), tuple | list):
            raise TypeError(f"args={wanted['args']!r} is no tuple")
        for message, delay in self.entries.values():
            is_wanted = all(FIELDS[field](message, delay, value) for field, value in wanted.items())
            if message.actor_name == name_of(actor) and is_wanted:
                yield message

    def _listing(self) -> str:
        if not self.entries:
            return "Nothing was enqueued."
        return "\n".join(["Enqueued, in order:", *(f"  {_line(*entry)}" for entry in self.entries.values())])


def assert_dead(
    letters: list[DeadLetter], actor: AnyActor, error: type[BaseException] | str | None
) -> DeadLetter:
    """See ``Kit.assert_dead``."""
    if error is not None and not isinstance(error, str | type):
        raise TypeError(f"error={error!r} is neither the class of an error nor its name")
    error_types = None if error is None else {error} if isinstance(error, str) else _names_of(error)
    for letter in letters:
        is_of_actor = letter.message is not None and letter.message.actor_name == name_of(actor)
        if is_of_actor and (error_types is None or letter.error_type in error_types):
            return letter
    wanted = "" if error is None else f" with {error if isinstance(error, str) else error.__name__}"
    listing = "\n".join(f"  {letter.message or letter.queue_name}: {letter.error}" for letter in letters)
    raise AssertionError(
        f"no message of {name_of(actor)!r} is a dead letter{wanted}.\n"
        + (f"Dead letters:\n{listing}" if letters else "There is no dead letter.")
    )


def name_of(actor: AnyActor) -> str:
    return actor if isinstance(actor, str) else actor.actor_name


def _names_of(error: type[BaseException]) -> set[str]:
    """The names of a class and of its subclasses: a dead letter has the name of a class alone."""
    names, left = set(), [error]
    while left:
        kind = left.pop()
        names.add(kind.__name__)
        left += type.__subclasses__(kind)
    return names


def _in_ms(delay: timedelta | float | None) -> float | None:
    if not isinstance(delay, timedelta | int | float | None):
        raise TypeError(f"delay={delay!r} is neither a number of milliseconds nor a timedelta")
    return round(delay.total_seconds() * 1000) if isinstance(delay, timedelta) else delay


def _described(actor: AnyActor, wanted: Mapping[str, Any]) -> str:
    return f"{name_of(actor)!r}" + "".join(f" with {field}={value!r}" for field, value in wanted.items())


def _line(message: Message[Any], delay: int | None) -> str:
    options = {name: value for name, value in message.options.items() if value is not None}
    parts = [str(message), f"queue={message.queue_name!r}"]
    parts += [] if delay is None else [f"delay={delay}"]
    return " ".join([*parts, str(options)] if options else parts)
