"""The sizes of the measurements: the only difference between the short and the full form."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """Counts of tasks and messages.

    Attributes:
      tasks: No-op tasks.
      bulk: Messages sent at once.
      sends: Messages sent one by one, by all threads together.
      idle: Messages sent to idle workers.
      cold: No-op tasks that wait before the first worker starts.
      waiting_s: The time for which waiting tasks keep 64 bare threads busy.
      spins: Tasks of 2 ms of pure Python.
      backlog: Tasks that wait before the first worker starts.
      delayed: Messages with a delay of up to `delayed_window_s`; as many more are due in an hour.
      submitting_s: The duration of the load on an API.
      verdicts: Submissions in the backlog of the moderation service.
      console_queues, dead, events: The queues, dead letters and events that the web console shows, beside
        `backlog` waiting messages.
      browsers, crowd_s: The browsers that look at it at once, and for how long.
      kills: Kills of a worker, each with a recovery.
      load_per_s, steady_s: Submissions per second, and their duration.
    """

    tasks: int = 50_000
    bulk: int = 50_000
    sends: int = 2_000
    idle: int = 200
    cold: int = 100_000
    waiting_s: float = 5.0
    spins: int = 4_000
    backlog: int = 1_000_000
    delayed: int = 20_000
    delayed_window_s: float = 60.0
    submitting_s: float = 10.0
    verdicts: int = 40_000
    console_queues: int = 60
    dead: int = 100_000
    events: int = 1_000_000
    browsers: int = 50
    crowd_s: float = 30.0
    kills: int = 30
    load_per_s: float = 80.0
    steady_s: float = 15.0


FULL = Sizes()
SMOKE = Sizes(
    tasks=4_000,
    bulk=4_000,
    sends=320,
    idle=30,
    cold=8_000,
    waiting_s=1.0,
    spins=600,
    backlog=20_000,
    delayed=500,
    delayed_window_s=3.0,
    submitting_s=3.0,
    verdicts=8_000,
    console_queues=6,
    dead=2_000,
    events=20_000,
    browsers=10,
    crowd_s=5.0,
    kills=2,
    steady_s=5.0,
)
