"""Requests that are generated from the OpenAPI document meet answers that it describes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dev.stack import ROOT


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.timeout(900)
def test_generated_requests_meet_answers_that_the_document_describes(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--stack") == "real":
        pytest.skip("minutes of processor time that show nothing of Kafka: the embedded stack runs it")
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=short", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "tests/api/generated_requests.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"[-8_000:]
    assert " passed" in done.stdout.splitlines()[-1]
