"""The promises about delivery hold through any order of events that a Kafka in memory can show."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.broker.memory.machine import Machine
from tests.examples import examples

#: Each has up to 40 steps: at least 5,000 steps together.
EXAMPLES = 300
MIN_STEPS = 5_000


@pytest.mark.timeout(900)  # 300 orders of events take a minute or two of processor time
def test_every_promise_holds_through_any_order_of_events(pytestconfig: pytest.Config) -> None:
    wanted = pytestconfig.getoption("--machine-examples")
    count = wanted or examples(EXAMPLES)
    before = Machine.steps
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=count,
            stateful_step_count=40,
            deadline=None,
            # The same orders in every run of the suite; others in each soak.
            derandomize=wanted is None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    if count >= EXAMPLES:
        assert Machine.steps - before >= MIN_STEPS
