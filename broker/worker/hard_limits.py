"""Announces the tasks with a hard time limit to the reaper, which kills this process when one exceeds it.

A thread of this process could not: a task that holds the interpreter's lock lets no other thread run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from datetime import timedelta

from ..deliveries.delivery import Delivery
from ..deliveries.in_flight import InFlightDeliveries
from ..errors import HardTimeLimitRefused
from ..process import clock
from ..reaper.registrar import Registrar
from ..reaper.wire import Limited

#: The option of an actor.
HARD_TIME_LIMIT = "hard_time_limit"


def check_hard_limit(actor_name: str, options: Mapping[str, object]) -> int | None:
    """The hard time limit of an actor in milliseconds; None without one.

    Raises:
      HardTimeLimitRefused: When it is no positive time span, or not longer than the actor's ``time_limit``.
    """
    given = options.get(HARD_TIME_LIMIT)
    if given is None:
        return None
    limit_ms = given / timedelta(milliseconds=1) if isinstance(given, timedelta) else given
    if not isinstance(limit_ms, int | float) or isinstance(limit_ms, bool) or not 0 < limit_ms < math.inf:
        raise HardTimeLimitRefused(
            f"The hard_time_limit= of the actor {actor_name!r} is {given!r}: pass a positive number of "
            "milliseconds, or a positive timedelta."
        )
    soft_ms = options.get("time_limit")
    if isinstance(soft_ms, int | float) and soft_ms != math.inf and limit_ms <= soft_ms:
        raise HardTimeLimitRefused(
            f"The hard_time_limit= of the actor {actor_name!r} is {limit_ms:g} ms, and its time_limit= is "
            f"{soft_ms:g} ms, which would never be reached: the hard limit has to be the longer one."
        )
    return math.ceil(limit_ms)


class HardLimits:
    """The hard limits of the tasks that run in this process. They cost nothing while no actor has one.

    Parameters:
      group_id: Of the consumer groups of this process.

    Attributes:
      limits_ms: The limits by the actor's name. The broker adds to them.
    """

    def __init__(
        self,
        registrar: Registrar,
        in_flight: InFlightDeliveries,
        limits_ms: Mapping[str, int],
        *,
        group_id: str,
    ) -> None:
        self._registrar = registrar
        self._in_flight = in_flight
        self.limits_ms = limits_ms
        self._group_id = group_id
        self._numbers = itertools.count(1)

    @property
    def actors(self) -> list[str]:
        """The names of the actors with a limit."""
        return sorted(self.limits_ms)

    def begin(self, delivery: Delivery) -> None:
        """Announce the run of a delivery that is about to begin, if its actor has a limit."""
        limit_ms = self.limits_ms.get(delivery.actor_name)
        if limit_ms is not None:
            self._registrar.await_reaper()
            number = delivery.limit_number = next(self._numbers)
            self._registrar.limit(self._limited(number, delivery, limit_ms))

    def end(self, delivery: Delivery) -> None:
        """Announce the end of a run. A second call changes nothing."""
        if (number := delivery.limit_number) is not None:
            self._registrar.end_limit(number)
            # In this order: an interrupt in between lets this be called again.
            delivery.limit_number = None

    def _limited(self, number: int, delivery: Delivery, limit_ms: int) -> Limited:
        origin = delivery.origin
        return Limited(
            number=number,
            until_s=clock.monotonic_s() + limit_ms / 1000,
            limit_ms=limit_ms,
            message_id=delivery.message_id,
            actor_name=delivery.actor_name,
            group_id=self._group_id,
            topic=origin.topic,
            partition=origin.partition,
            offset=origin.offset,
            crashes=delivery.assigned_partition.crash_counts.crashes(origin.offset) + 1,
            partitions=[(p.topic, p.partition) for p in self._in_flight.assigned()],
        )
