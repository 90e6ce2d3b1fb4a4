"""A plain account of messages, against which a broker on a Kafka in memory is checked."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import count, pairwise

from broker.partition_keys.limits import EARLY_MS

MAX_RETRIES = 2
#: Of the messages with a rate.
RATE, INTERVAL_MS = "60/m", 1_000


@dataclass
class Plan:
    """What is to become of one message.

    Attributes:
      fails: The number of its first runs that fail. With more than MAX_RETRIES it becomes a dead letter.
      key: Its partition key.
      is_acknowledged: Whether its enqueue returned without an error.
      may_be_dropped: Whether a flush or a cancel was asked for, so that it need not run.
      limited_key: Its partition key, if that has a rate.
      unique_key: Its unique key.
      until_started: Whether it frees that key when its run begins, and not when it is done.
      sent_at: The number of the event of its send; the end of the send when it is acknowledged.
      starts, ends: The numbers of the events at which it began, and was done or given up.
    """

    fails: int
    key: str | None
    is_delayed: bool
    is_acknowledged: bool = False
    may_be_dropped: bool = False
    limited_key: str | None = None
    unique_key: str | None = None
    until_started: bool = False
    sent_at: int = 0
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    @property
    def frees(self) -> list[int]:
        """The events at which it may have freed its key."""
        return self.starts if self.until_started else self.ends


@dataclass
class Ledger:
    """What was sent, and what ran.

    Attributes:
      is_disturbed: Whether something happened after which a message may run again: a crash, a lost membership
        or a lost answer.
      began_ms: When runs of a key with a rate began.
      rates_may_be_exceeded: Whether two processes may have run messages of one key, or a clock was set.
    """

    plans: dict[int, Plan] = field(default_factory=dict)
    runs: Counter[int] = field(default_factory=Counter)
    successes: Counter[int] = field(default_factory=Counter)
    first_runs: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    is_disturbed: bool = False
    began_ms: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    rates_may_be_exceeded: bool = False
    events: count[int] = field(default_factory=lambda: count(1))

    def note_start(self, number: int, now_ms: int) -> None:
        """Note that a run begins, also one that its process does not survive."""
        plan = self.plans[number]
        plan.starts.append(next(self.events))
        if plan.limited_key is not None:
            self.began_ms[plan.limited_key].append(now_ms)

    def note_run(self, number: int, retries: int) -> None:
        """Note a run; raise the error that is planned for it."""
        plan = self.plans[number]
        if plan.key is not None and not plan.is_delayed and not self.runs[number]:
            self.first_runs[plan.key].append(number)
        self.runs[number] += 1
        if retries >= min(plan.fails, MAX_RETRIES):
            plan.ends.append(next(self.events))
        if retries < plan.fails:
            raise RuntimeError(f"run {retries} of {number} is to fail")
        self.successes[number] += 1

    def check(self, dead: Counter[int]) -> None:
        """Compare the end with the plans.

        Parameters:
          dead: The number of dead letters of each message.
        """
        for number, plan in self.plans.items():
            dies = plan.fails > MAX_RETRIES
            reached = dead[number] if dies else self.successes[number]
            if plan.is_acknowledged and not plan.may_be_dropped:
                assert reached or self._is_duplicate(plan), f"message {number} is lost: {plan}"
            if self.is_disturbed:
                continue
            assert reached <= 1, f"message {number} came to its end {reached} times: {plan}"
            assert self.runs[number] <= min(plan.fails, MAX_RETRIES) + 1, f"{number} ran too often: {plan}"
            if not dies:
                assert not dead[number], f"message {number} succeeded and is a dead letter: {plan}"
        self._check_duplicates()
        self._check_rates()
        if not self.is_disturbed:
            for key, numbers in self.first_runs.items():
                assert numbers == sorted(numbers), f"the messages of {key!r} began out of order: {numbers}"

    def _is_duplicate(self, plan: Plan) -> bool:
        """Whether another message of its unique key freed the key after this one was sent."""
        return plan.unique_key is not None and any(
            other is not plan
            and other.unique_key == plan.unique_key
            and max(other.frees, default=0) > plan.sent_at
            for other in self.plans.values()
        )

    def _check_rates(self) -> None:
        """The runs of a key keep their distance, also those of the next process after a crash."""
        if not self.rates_may_be_exceeded:
            for key, began_ms in self.began_ms.items():
                for earlier, later in pairwise(began_ms):
                    assert later - earlier >= INTERVAL_MS - EARLY_MS, f"{key!r} began too soon: {began_ms}"

    def _check_duplicates(self) -> None:
        """No message ran that was sent before an earlier one of its unique key freed the key.

        That holds through crashes, too. A delayed message takes its place when it is due.
        """
        unique = [
            (number, plan)
            for number, plan in self.plans.items()
            if plan.unique_key is not None and plan.is_acknowledged and not plan.is_delayed
        ]
        for number, plan in unique:
            for earlier, holder in unique:
                if earlier < number and holder.unique_key == plan.unique_key and holder.frees and plan.starts:
                    assert plan.sent_at > holder.frees[0], (
                        f"message {number} ran, a duplicate of {earlier}: {plan}, {holder}"
                    )
