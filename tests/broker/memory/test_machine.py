"""The promises about delivery hold through any order of events that a Kafka in memory can show."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.broker.memory.machine import Machine
from tests.examples import examples

TestEveryOrderOfEvents = Machine.TestCase
TestEveryOrderOfEvents.settings = settings(
    max_examples=examples(200),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
