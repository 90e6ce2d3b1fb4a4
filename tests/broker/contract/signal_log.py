"""A middleware that notes every signal."""

from __future__ import annotations

from collections.abc import Callable

from dramatiq import Broker, Message
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware


class SignalLog(Middleware):
    """Notes every signal and the id of the message that it is about, in the order they come."""

    def __init__(self) -> None:
        self.signals: list[tuple[str, str | None]] = []

    def of(self, message: Message[object]) -> list[str]:
        """The signals about one message."""
        return [name for name, message_id in self.signals if message_id == message.message_id]

    def containing(self, text: str) -> list[str]:
        """The signals with ``text`` in their name."""
        return [name for name, _ in self.signals if text in name]


def _noting(name: str) -> Callable[..., None]:
    def note(self: SignalLog, broker: Broker, *args: object, **_: object) -> None:
        messages = [arg for arg in args if isinstance(arg, Message | MessageProxy)]
        self.signals.append((name, messages[0].message_id if messages else None))

    return note


for _name in dir(Middleware):
    if _name.startswith(("before_", "after_")):
        setattr(SignalLog, _name, _noting(_name))
