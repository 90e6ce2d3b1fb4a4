"""A client that sends no more bytes."""

from collections.abc import Callable


class HangUp:
    """Whether the client of a connection has closed its sending side, or all of it.

    Attributes:
      is_over: Whether it has.
      call: Called when it does; None for nothing.
    """

    def __init__(self) -> None:
        self.is_over = False
        self.call: Callable[[], None] | None = None

    def note(self) -> None:
        """Note that the client has done so."""
        self.is_over = True
        if self.call is not None:
            self.call()
