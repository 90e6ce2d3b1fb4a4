"""Messages that are sent while their process ends."""

from __future__ import annotations

import subprocess
import sys

from broker import KafkaBroker
from dev.stack import ROOT, Stack

DEADLINE_S = 120


def test_exit_handlers_send_whenever_they_were_registered_and_the_process_ends(
    stack: Stack, namespace: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.broker.last_sends_app", stack.bootstrap_servers, namespace],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    # Python reports what a handler raises, and ends with 0 all the same.
    assert (done.returncode, done.stderr) == (0, "")

    broker = KafkaBroker(stack.bootstrap_servers, namespace=namespace)
    broker.declare_queue("work")
    assert broker.count("work") == 4
    broker.close()
