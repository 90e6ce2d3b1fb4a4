"""The rate at which a system's workers complete a long queue.

The timed part begins after all tasks that the workers can have read ahead, and ends while as many tasks are
left in the queue: for each task that runs in the timed part, one is fetched in it. (A client that has read
all tasks before the clock starts seems two to three times as fast as it is.)
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import psutil

from bench.ground import Ground
from bench.place import Place
from bench.systems import System
from bench.workers import Workers

#: The number of tasks that every system completes before the clock starts.
WARM_UP = 500


@dataclass(frozen=True, slots=True)
class Steady:
    """The measurements during the counted tasks.

    Attributes:
      tasks_per_s: The rate.
      worker_cpu_s, server_cpu_s: Processor seconds for 10,000 tasks.
      server_share: The share of one core that the server used meanwhile.
      others_cores: The number of cores that all other processes of the machine used meanwhile.
      ready_s: From the start of the workers until each of their threads had a task.
    """

    tasks_per_s: float
    worker_cpu_s: float
    server_cpu_s: float
    server_share: float
    others_cores: float
    ready_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Course:
    """The number of tasks, and the counted part of them.

    Attributes:
      before: Tasks that run before the clock starts.
      counted: Tasks that run while the clock runs.
      after: Tasks that are in the queue when the clock stops.
    """

    before: int
    counted: int
    after: int

    @property
    def total(self) -> int:
        return self.before + self.counted + self.after


def course_of(system: System, counted: int, *, read_ahead: bool = True) -> Course:
    """The course for `system`.

    Parameters:
      read_ahead: Whether reading affects the rate. It does not where tasks take milliseconds.
    """
    ahead = system.read_ahead if read_ahead else 0
    return Course(before=max(WARM_UP, ahead), counted=counted, after=ahead)


def measure(
    ground: Ground,
    system: System,
    place: Place,
    course: Course,
    *,
    processes: int,
    threads: int,
    beside: AbstractContextManager[object] | None = None,
) -> Steady:
    """Fill the queue of the place, then let workers run its tasks.

    A system without a server gives itself its tasks: `preload` of its place.

    Parameters:
      beside: A context manager that is entered meanwhile.
    """
    if system.server:
        ground.send(system, place, course.total)
    started_s = time.monotonic()
    with (
        ground.workers(system, place, processes=processes, threads=threads) as workers,
        beside or nullcontext(),
    ):
        workers.wait_until_all_hold_a_task()
        ready_s = time.monotonic() - started_s
        workers.tally.open_gate()
        before = Clocks.read(ground, system, workers, course.before)
        after = Clocks.read(ground, system, workers, course.before + course.counted)
    return replace(between(before, after), ready_s=ready_s)


@dataclass(frozen=True, slots=True)
class Clocks:
    """The relevant clocks, read at the same moment.

    Attributes:
      count: Tasks done so far.
      all_s: Processor seconds of all processes of the machine.
    """

    count: int
    at_s: float
    worker_s: float
    server_s: float
    all_s: float

    @classmethod
    def read(cls, ground: Ground, system: System, workers: Workers, count: int) -> Clocks:
        """Wait until `count` tasks are done, then read them."""
        done = workers.wait_for(count).count
        machine = psutil.cpu_times()
        # Linux counts guest time inside user and nice as well.
        idle_s = machine.idle + getattr(machine, "iowait", 0.0)
        twice_s = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)
        return cls(
            count=done,
            at_s=time.monotonic(),
            worker_s=workers.cpu_s(),
            server_s=ground.servers.cpu_s(system.server) if system.server else 0.0,
            all_s=sum(machine) - idle_s - twice_s,
        )


def between(before: Clocks, after: Clocks) -> Steady:
    count, elapsed_s = after.count - before.count, after.at_s - before.at_s
    worker_s, server_s = after.worker_s - before.worker_s, after.server_s - before.server_s
    return Steady(
        tasks_per_s=count / elapsed_s,
        worker_cpu_s=worker_s / count * 10_000,
        server_cpu_s=server_s / count * 10_000,
        server_share=server_s / elapsed_s,
        others_cores=max(0.0, after.all_s - before.all_s - worker_s - server_s) / elapsed_s,
    )
