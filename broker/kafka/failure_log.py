"""Logs the failures of a thread that tries again until it succeeds."""

from __future__ import annotations

import logging

from ..errors import NotAuthorized
from .clients import Clients
from .errors import KafkaError
from .rights import Denials, Rights, is_denial


class FailureLog:
    """Logs a failure of another kind than the one before, a missing right, and the end of both, once each.

    Parameters:
      rights: The rights that the activity takes.
      activity: The activity that fails while one of them is missing, as a sentence without its full stop.
      failing: The line of another failure; its ``%s`` is the reason.
      works: The line of the end of failures.
    """

    def __init__(
        self,
        clients: Clients,
        rights: Rights,
        logger: logging.Logger,
        *,
        activity: str,
        failing: str,
        works: str,
    ) -> None:
        self._clients = clients
        self._rights = rights
        self._logger = logger
        self._activity = activity
        self._failing, self._works = failing, works
        self._denials = Denials()
        self._kind: str | None = None

    def note(self, reason: BaseException) -> None:
        """Log a failure."""
        if isinstance(reason, KafkaError) and is_denial(reason):
            reason = self._clients.translated(reason, self._activity, self._rights)
        if isinstance(reason, NotAuthorized):
            self._denials.note(self._activity, reason)
        elif self._kind != (kind := type(reason).__name__):
            self._logger.warning(self._failing, reason or repr(reason))
            self._kind = kind

    def note_rights(self) -> None:
        """Log that no right is missing any more."""
        self._denials.is_over(self._activity)

    def note_success(self) -> None:
        """Log the end of the failures."""
        if self._kind is not None:
            self._logger.info(self._works)
        self._kind = None
