"""A worker that has died, as its reaper knew it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..kafka.types import Membership
from ..process import clock
from .process_watch import Exit
from .wire import Introduction, Limited


@dataclass(slots=True)
class DeadWorker:
    """A worker that ended without a goodbye.

    Attributes:
      memberships: Its members when it died.
      culprit: The task for which the reaper has killed it; None when it ended for another reason.
      command: The host and the process id of its command.
      siblings: The members of the other workers of its command, as far as Dramatiq stops them now.
      died_ms: In milliseconds since 1970.
    """

    introduction: Introduction
    exit: Exit
    memberships: set[Membership]
    command: str = ""
    siblings: set[Membership] = field(default_factory=set)
    culprit: Limited | None = None
    died_ms: int = field(default_factory=lambda: clock.wall_ms())

    @property
    def expires_ms(self) -> int:
        return self.died_ms + self.introduction.session_timeout_ms
