"""``python -m submissions``, as far as no server is asked. tests/tasks has the commands on servers."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from submissions.console.command import app


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("redrive", "say --all"),
        ("redrive 1 --all", "say --all"),
        ("redrive one", "Invalid value for '[TASK_ID...]'"),
        ("redrive 0", "0 is no task id"),
        ("redrive --all --apply", "needs --reason"),
        ("redrive --all --since yesterday", "is no time"),
        ("requeue", "say --all"),
        ("requeue --all --older-than soon", "is no duration"),
        ("show 0", "0 is no task id"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_a_server_is_asked(arguments: str, said: str) -> None:
    done = CliRunner().invoke(app, arguments.split(), prog_name="submissions")
    assert done.exit_code == 2, done.output
    assert said in done.stderr


@pytest.mark.parametrize("verb", ["show", "redrive", "requeue", "stats"])
def test_each_command_has_help_with_an_example_of_itself(verb: str) -> None:
    ran = CliRunner().invoke(app, [verb, "--help"], prog_name="submissions")
    assert ran.exit_code == 0
    assert f"python -m submissions {verb}" in ran.stdout
