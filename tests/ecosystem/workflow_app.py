"""A workflow as dramatiq-workflow's documentation draws it: chains and groups, nested, with a delay."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.rate_limits.backends import RedisBackend
from dramatiq_workflow import Chain, Group, WithDelay, Workflow, WorkflowMiddleware

from broker import KafkaBroker
from tests.ecosystem.journal import note

broker = KafkaBroker(url=os.environ["KAFKA_URL"])
broker.add_middleware(WorkflowMiddleware(RedisBackend(url=os.environ["REDIS_URL"])))
dramatiq.set_broker(broker)


@dramatiq.actor(min_backoff=10, max_backoff=10)
def task(number: int, fails: int = 0) -> None:
    message = dramatiq.middleware.CurrentMessage.get_current_message()
    assert message is not None
    if message.options.get("retries", 0) < fails:
        raise ConnectionError(f"task {number} is told to fail {fails} times")
    note("done", number=number)


broker.add_middleware(dramatiq.middleware.CurrentMessage())


def send() -> None:
    workflow = Workflow(
        Chain(
            task.message(1),
            Group(
                Chain(task.message(2), WithDelay(task.message(5), delay=200)),
                task.message(3, fails=1),
                Chain(task.message(4), Group(task.message(6), task.message(7))),
            ),
            task.message(8),
        ),
    )
    workflow.run()
    broker.close()


if __name__ == "__main__":
    send()
