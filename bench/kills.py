"""Kills a worker again and again, and measures when its messages run elsewhere."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from dataclasses import dataclass

from bench.commands import Commands
from bench.ground import Ground
from bench.holding import Run, runs
from bench.place import Place
from bench.systems import System
from bench.workers import Stalled
from dev.waiting import wait_until

#: The time after which a message counts as not run again. Several systems wait for up to an hour.
CUT_OFF_S = 30.0
#: The number of kills at the beginning that all reach CUT_OFF_S, after which no further one is made.
GIVE_UP_AFTER = 3
THREADS = 4
MESSAGES = 64
READY_TIMEOUT_S = 90.0
#: The time between the first task of every thread and the kill: registrations, heartbeats and commits settle.
SETTLE_S = 3.0
POLL_S = 0.004


@dataclass(frozen=True, slots=True)
class Killing:
    """One way of killing a worker.

    Attributes:
      commands: The number of commands.
      processes: The worker processes of each.
      supervised: Whether a command that ends is started again.
      whole: Whether all processes of the command are killed; otherwise one worker process is.
    """

    commands: int
    processes: int
    supervised: bool
    whole: bool = False

    @property
    def workers(self) -> int:
        return self.commands * self.processes


@dataclass(frozen=True, slots=True)
class Recovery:
    """The recovery from one kill.

    Attributes:
      seconds: From the SIGKILL until the last of the messages has begun to run in a process that lives;
        CUT_OFF_S when one has not by then.
      restarted_s: From the SIGKILL until the supervisor started the command again; 0.0 without that.
    """

    seconds: float
    restarted_s: float

    @property
    def is_cut_off(self) -> bool:
        return self.seconds >= CUT_OFF_S


def kill_repeatedly(ground: Ground, system: System, killing: Killing, kills: int) -> list[Recovery]:
    """Measure the recoveries from ``kills`` kills, in one place with the same queue."""
    found: list[Recovery] = []
    with (
        ground.place(system, task="hold") as place,
        ground.commands(
            system,
            place,
            number=killing.commands,
            processes=killing.processes,
            threads=THREADS,
            supervised=killing.supervised,
        ) as commands,
    ):
        for trial in range(kills):
            found.append(_Trial(ground, system, place, commands, killing, trial).recovery())
            if len(found) == GIVE_UP_AFTER and all(recovery.is_cut_off for recovery in found):
                break
    return found


class _Trial:
    def __init__(
        self,
        ground: Ground,
        system: System,
        place: Place,
        commands: Commands,
        killing: Killing,
        number: int,
    ) -> None:
        self._ground = ground
        self._system = system
        self._place = place
        self._commands = commands
        self._killing = killing
        self._gate = f"gate{number}"
        self._first = number * MESSAGES

    def recovery(self) -> Recovery:
        args = [self._first, self._gate]
        self._ground.send(self._system, self._place, MESSAGES, how="numbered", args=args)
        victim = self._victim()
        child = self._commands.command_of(victim)
        killed_s = time.monotonic()
        if self._killing.whole:
            child.kill()
        else:
            os.kill(victim, signal.SIGKILL)
        (self._commands.directory / self._gate).touch()
        seconds = self._until_all_began(killed_s, victim)
        restarted = [at_s for at_s in self._commands.restarts_s if at_s >= killed_s]
        if not self._killing.supervised:
            self._commands.replace(child)
        elif not restarted and seconds >= CUT_OFF_S:
            child.kill()  # it has not ended by itself, and would be missing from the next trial
        return Recovery(seconds, restarted[0] - killed_s if restarted else 0.0)

    def _victim(self) -> int:
        """Wait until every thread of every worker holds a task, and choose a process."""

        def holders() -> dict[int, set[int]]:
            found: dict[int, set[int]] = defaultdict(set)
            for run in self._runs():
                found[run.pid].add(run.number)
            return found

        def all_hold() -> list[int]:
            full = [pid for pid, held in holders().items() if len(held) >= THREADS]
            return full if len(full) >= self._killing.workers else []

        try:
            pids = wait_until(all_hold, deadline_s=READY_TIMEOUT_S, what="a task in every thread")
        except TimeoutError as error:
            raise Stalled(f"{self._system.title}: {error}\n{self._commands.tails()}") from error
        time.sleep(SETTLE_S)
        return pids[self._first // MESSAGES % len(pids)]

    def _until_all_began(self, killed_s: float, victim: int) -> float:
        while (passed_s := time.monotonic() - killed_s) < CUT_OFF_S:
            began_s: dict[int, float] = {}
            for run in self._runs():
                if run.pid != victim:
                    began_s.setdefault(run.number, run.began_s)
            if len(began_s) == MESSAGES:
                return max(max(began_s.values()) - killed_s, 0.0)
            time.sleep(POLL_S if passed_s < 5.0 else 10 * POLL_S)
        return CUT_OFF_S

    def _runs(self) -> list[Run]:
        numbers = range(self._first, self._first + MESSAGES)
        return [run for run in runs(self._commands.directory) if run.number in numbers]
