"""The lines of a worker that Dramatiq's command line runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import dramatiq
import pytest

from broker import KafkaBroker
from dev.stack import Stack
from tests.broker.features.command_line import CommandLine
from tests.waiting import wait_until

DEADLINE_S = 90.0


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]


@pytest.mark.servers
def test_a_worker_without_a_terminal_writes_json_that_names_task_and_worker(
    stack: Stack, namespace: str, tmp_path: Path
) -> None:
    broker = KafkaBroker(stack.bootstrap_servers, namespace=namespace)
    message: dramatiq.Message[None] = dramatiq.Message("mail", "pay", ("4012-8888",), {}, {})
    broker.enqueue(message)
    broker.close()
    env = {**os.environ, "BOOTSTRAP_SERVERS": stack.bootstrap_servers, "NAMESPACE": namespace}
    arguments = ["tests.broker.logs.logging_app", "--processes", "1", "--threads", "1"]
    command = CommandLine(*arguments, env=env, log=tmp_path / "worker.log")
    command.start()
    try:

        def succeeded() -> dict[str, Any] | None:
            command.check()
            return next(
                (line for line in json_lines(command.output()) if line.get("state") == "succeeded"), None
            )

        line = wait_until(succeeded, deadline_s=DEADLINE_S, what="the line of the success")
        lines = json_lines(command.output())
    finally:
        command.stop()
    assert (line["message_id"], line["actor"], line["attempt"]) == (message.message_id, "pay", 1)
    assert line["worker"].count(":") == 2
    (own,) = [line for line in lines if line["text"] == "asking the bank"]
    assert own["message_id"] == message.message_id
    assert "4012-8888" not in command.output()
