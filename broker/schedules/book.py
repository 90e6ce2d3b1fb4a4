"""The schedules as the records of the topic define them, and the occurrences that are due.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, replace

from .record_format import Definition, Entry, Firing, Gone, Pause, ScheduleState


@dataclass(frozen=True, slots=True)
class Decision:
    """The due occurrences of a schedule.

    Attributes:
      run: The occurrences to enqueue, ascending.
      state: The state of the schedule once they are enqueued.
    """

    definition: Definition
    run: tuple[int, ...]
    state: ScheduleState


class Book:
    """The schedules of a namespace.

    A schedule has no due occurrence while one of its occurrences is in a firing.

    Attributes:
      definitions, pauses, states: By the schedule's name.
      firings: The firings without a tombstone, by their ids.
      forgotten: The deleted schedules that have a state.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, Definition] = {}
        self.pauses: dict[str, Pause] = {}
        self.states: dict[str, ScheduleState] = {}
        self.firings: dict[str, Firing] = {}
        self.forgotten: set[str] = set()
        #: Due time, name, occurrence, and the number of the schedule's plan. Only its last plan is valid.
        self._due: list[tuple[int, str, int, int]] = []
        self._plans: dict[str, int] = {}
        self._plan_count = 0
        #: The schedules whose next occurrence is not planned yet. A read of the topic changes each often.
        self._unplanned: set[str] = set()
        self._held: Counter[str] = Counter()

    def take(self, entry: Entry) -> None:
        """Apply a record of the topic."""
        match entry:
            case Definition():
                before = self.definitions.get(entry.name)
                if before is not None and before.keeps_time(entry):
                    entry = replace(entry, since_ms=min(before.since_ms, entry.since_ms))
                self.definitions[entry.name] = entry
                self.forgotten.discard(entry.name)
                self._plan(entry.name)
            case Pause():
                self.pauses[entry.name] = entry
                self._plan(entry.name)
            case ScheduleState():
                self.note_state(entry)
            case Firing():
                self._drop_firing(entry.id)
                self.firings[entry.id] = entry
                self._hold(entry, 1)
            case Gone():
                self._take_gone(entry)

    def _take_gone(self, gone: Gone) -> None:
        if gone.kind is Firing:
            self._drop_firing(gone.name)
        elif gone.kind is ScheduleState:
            self.states.pop(gone.name, None)
            self.forgotten.discard(gone.name)
        elif gone.kind is Pause:
            self.pauses.pop(gone.name, None)
            self._plan(gone.name)
        else:
            self.definitions.pop(gone.name, None)
            if gone.name in self.states:
                self.forgotten.add(gone.name)
            self._plan(gone.name)

    def note_state(self, state: ScheduleState) -> None:
        """Note that occurrences are decided. A state never goes back: a former owner may write a late one."""
        before = self.states.get(state.name)
        if before is None or state.last_ms > before.last_ms:
            self.states[state.name] = state
            if state.name not in self.definitions:
                self.forgotten.add(state.name)
            self._plan(state.name)

    def _drop_firing(self, firing_id: str) -> None:
        if (firing := self.firings.pop(firing_id, None)) is not None:
            self._hold(firing, -1)

    def _hold(self, firing: Firing, count: int) -> None:
        for name, _ in firing.occurrences:
            self._held[name] += count
            if not self._held[name]:
                del self._held[name]
            self._plan(name)

    # Times

    def since_ms(self, name: str) -> int:
        """The occurrences of a schedule after this time have not run yet."""
        since_ms = self.definitions[name].since_ms
        if name in self.states:
            since_ms = max(since_ms, self.states[name].last_ms)
        if name in self.pauses:
            since_ms = max(since_ms, self.pauses[name].since_ms)
        return since_ms

    def is_paused(self, name: str) -> bool:
        return name in self.pauses and self.pauses[name].is_paused

    def next_ms(self, name: str) -> int | None:
        """The next occurrence of a schedule; None while it is paused, or when there is none."""
        if self.is_paused(name):
            return None
        return self.definitions[name].timing.next_after(self.since_ms(name))

    def _plan(self, name: str) -> None:
        self._unplanned.add(name)

    def _plan_now(self, name: str) -> None:
        self._plan_count += 1
        self._plans[name] = plan = self._plan_count
        if name not in self.definitions:
            del self._plans[name]
        elif name not in self._held and (occurrence_ms := self.next_ms(name)) is not None:
            due_ms = self.definitions[name].timing.due_ms(name, occurrence_ms)
            heapq.heappush(self._due, (due_ms, name, occurrence_ms, plan))

    @property
    def next_due_ms(self) -> int | None:
        """The time at which the next occurrence is due; None without one."""
        while self._unplanned:
            self._plan_now(self._unplanned.pop())
        while self._due:
            due_ms, name, _, plan = self._due[0]
            if self._plans.get(name) == plan:
                return due_ms
            heapq.heappop(self._due)
        return None

    def upcoming(self, until_ms: int, limit: int) -> list[tuple[Definition, int]]:
        """The next occurrence of each schedule whose one is due until then, with its definition.

        Parameters:
          limit: The most of them.
        """
        taken = self._take_due(until_ms, limit)
        return [(self.definitions[name], occurrence_ms) for _, name, occurrence_ms, _ in taken]

    def _take_due(self, until_ms: int, limit: int) -> list[tuple[int, str, int, int]]:
        """The first entries of the heap that are due until then. They stay in it."""
        taken: list[tuple[int, str, int, int]] = []
        while len(taken) < limit and (due_ms := self.next_due_ms) is not None and due_ms <= until_ms:
            taken.append(heapq.heappop(self._due))
        for item in taken:
            heapq.heappush(self._due, item)
        return taken

    def due(self, now_ms: int, limit: int) -> list[Decision]:
        """Decide about the due occurrences of schedules.

        They stay due until the states of the decisions are noted, or a firing has them.

        Parameters:
          limit: The most occurrences to enqueue; one schedule alone may exceed it.
        """
        decisions: list[Decision] = []
        count = 0
        for _, name, first_ms, _ in self._take_due(now_ms, limit):
            decisions.append(self._decide(name, first_ms, now_ms))
            count += max(1, len(decisions[-1].run))
            if count >= limit:
                break
        return decisions

    def _decide(self, name: str, first_ms: int, now_ms: int) -> Decision:
        definition = self.definitions[name]
        run, last_ms = definition.timing.select(name, first_ms, now_ms)
        before = self.states.get(name, ScheduleState(name, last_ms))
        missed = before.missed + (not run or run[0] > first_ms)
        state = ScheduleState(name, last_ms, run[-1] if run else before.ran_ms, missed)
        return Decision(definition, tuple(run), state)
