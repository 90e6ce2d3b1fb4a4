"""A plain account of messages, against which a broker on a Kafka in memory is checked."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

MAX_RETRIES = 2


@dataclass
class Plan:
    """What is to become of one message.

    Attributes:
      fails: The number of its first runs that fail. With more than MAX_RETRIES it becomes a dead letter.
      key: Its partition key.
      is_acknowledged: Whether its enqueue returned without an error.
      may_be_dropped: Whether a flush or a cancel was asked for, so that it need not run.
    """

    fails: int
    key: str | None
    is_delayed: bool
    is_acknowledged: bool = False
    may_be_dropped: bool = False


@dataclass
class Ledger:
    """What was sent, and what ran.

    Attributes:
      is_disturbed: Whether something happened after which a message may run again: a crash, a lost membership
        or a lost answer.
    """

    plans: dict[int, Plan] = field(default_factory=dict)
    runs: Counter[int] = field(default_factory=Counter)
    successes: Counter[int] = field(default_factory=Counter)
    first_runs: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    is_disturbed: bool = False

    def note_run(self, number: int, retries: int) -> None:
        """Note a run; raise the error that is planned for it."""
        plan = self.plans[number]
        if plan.key is not None and not plan.is_delayed and not self.runs[number]:
            self.first_runs[plan.key].append(number)
        self.runs[number] += 1
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
                assert reached, f"message {number} is lost: {plan}"
            if self.is_disturbed:
                continue
            assert reached <= 1, f"message {number} came to its end {reached} times: {plan}"
            assert self.runs[number] <= min(plan.fails, MAX_RETRIES) + 1, f"{number} ran too often: {plan}"
            if not dies:
                assert not dead[number], f"message {number} succeeded and is a dead letter: {plan}"
        if not self.is_disturbed:
            for key, numbers in self.first_runs.items():
                assert numbers == sorted(numbers), f"the messages of {key!r} began out of order: {numbers}"
