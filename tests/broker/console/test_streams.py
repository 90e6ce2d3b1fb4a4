"""dkb on standard streams that take no answer, or not every character of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dev.stack import ROOT
from tests.broker.console.documents_schema import check

VERBS = [("dlq", "list"), ("dlq", "list", "--json"), ("dlq", "export", "mail")]


def dkb(
    *arguments: str, redirection: str = "", encoding: str = "utf-8"
) -> subprocess.CompletedProcess[bytes]:
    """Run dkb in a shell with a redirection."""
    command = [sys.executable, "-m", "tests.broker.console.dkb_with_dead_letters", *arguments]
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *command],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_an_answer_that_a_full_disk_does_not_take_is_one_sentence_and_exit_code_5(
    verb: tuple[str, ...],
) -> None:
    ran = dkb(*verb, redirection=">/dev/full")
    assert ran.stderr.decode() == (
        "dkb: The answer could not be written to standard output: No space left on device.\n"
    )
    assert ran.returncode == 5


def test_with_a_closed_stdout_nothing_is_done() -> None:
    ran = dkb("dlq", "list", redirection=">&-")
    assert ran.stderr.decode() == "dkb: Standard output is closed: nothing was done.\n"
    assert ran.returncode == 2


def test_messages_do_not_get_into_the_answer_when_stderr_is_closed() -> None:
    ran = dkb("dlq", "list", "--error", "KeyError", redirection="2>&-")
    assert (ran.returncode, ran.stdout) == (0, b"")


def test_a_stdout_of_ascii_gets_escapes_and_its_json_stays_json() -> None:
    ran = dkb("dlq", "list", encoding="ascii")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"zu gro\\xdf: \\U0001f4e6" in ran.stdout
    ran = dkb("dlq", "list", "--json", encoding="ascii")
    document = json.loads(ran.stdout.decode("ascii"))
    check(document)
    assert document["dead_letters"][0]["error"] == "zu groß: 📦"
    ran = dkb("dlq", "export", "mail", encoding="ascii")
    assert "zu groß: 📦" in json.dumps(json.loads(ran.stdout.decode("ascii")), ensure_ascii=False)
