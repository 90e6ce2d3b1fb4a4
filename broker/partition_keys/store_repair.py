"""Finds the entries that a lanes topic lost in a truncation, and lets their owner repair the topic.

A reader that continued would keep the records that the topic has lost, and would miss the ones that were
written since below the old end. The topic is therefore read again from its beginning and compared with the
known entries. The owner of a partition has the better knowledge: it writes lost entries that still wait a
second time. It also writes another tombstone for each entry that is done, which it compares with its memory:
the reader may not have read the lost tombstones.
"""

from __future__ import annotations

from collections.abc import Callable

from .record_format import Place, Waiting
from .waiting_table import WaitingTable

#: Takes the entries that the topic has lost.
Repair = Callable[[list[Waiting]], None]


class StoreRepair:
    """Compares the entries of a lanes topic before a truncation with the entries after it.

    Parameters:
      repair: Called with the lost entries, and again until it does not raise.

    Attributes:
      done: The places with a tombstone (done, or flushed) at the last repeated read of the topic.
    """

    def __init__(self, table: WaitingTable, repair: Repair) -> None:
        self.done: set[Place] = set()
        self._table = table
        self._repair = repair
        self._comparing = False
        self._lost: list[Waiting] | None = None

    def begin(self) -> None:
        """Set the known entries aside: the topic is read again. A second call before :meth:`finish` changes
        nothing.
        """
        if not self._comparing:
            self._table.set_aside()
            self._comparing = True
            self.done = set()

    def note_done(self, place: Place) -> None:
        """Note that the topic has a tombstone for ``place``: its entry was not lost."""
        if self._comparing:
            self.done.add(place)

    def finish(self) -> None:
        """Note that the topic is read to its end. This ends a comparison, if there is one."""
        if self._comparing:
            lost = self._table.drop_earlier()
            self._lost = [waiting for waiting in lost if waiting.place not in self.done]
            self._comparing = False

    def repair(self) -> bool:
        """Have the lost entries repaired; return whether there was a comparison, after which the topic has to
        be read.
        """
        if self._lost is None:
            return False
        if self._lost:
            self._repair(self._lost)
        self._lost = None
        return True
