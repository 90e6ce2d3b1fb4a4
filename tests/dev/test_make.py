"""The Makefile: what a newcomer types."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from dev.stack import ROOT

TARGETS = (
    "run",
    "test-fast",
    "test",
    "test-real",
    "coverage",
    "migrate",
    "train",
    "lint",
    "types",
    "imports",
)


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # These tests may themselves run under `make test`, which would pass its flags and level on.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_help_lists_every_target_in_one_line() -> None:
    lines = make("help").stdout.splitlines()
    assert all(re.fullmatch(r"make [a-z-]+ +\S.*", line) for line in lines)
    declared = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert [line.split()[1] for line in lines] == declared[0].split()


def test_help_is_what_make_alone_prints() -> None:
    assert make().stdout == make("help").stdout


@pytest.mark.parametrize("target", TARGETS)
def test_a_recipe_is_plain_commands_of_the_environment(target: str) -> None:
    recipe = make("-n", "-o", ".venv/runtime.stamp", "-o", ".venv/dev.stamp", target).stdout.splitlines()
    assert recipe
    assert all(line.startswith(".venv/bin/") for line in recipe)


def test_a_python_that_is_too_old_is_one_sentence(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text(
        "#!/bin/sh\n"  # runs the check as an old Python would
        "pretend=\"import sys; sys.version_info = (3, 9, 2); sys.version = '3.9.2 x'; exec(sys.argv[1])\"\n"
        'exec python3 -c "$pretend" "$2"\n'
    )
    old.chmod(0o755)
    done = make("-B", "-f", str(ROOT / "Makefile"), ".venv/runtime.stamp", f"PYTHON={old}")
    assert done.returncode != 0
    assert f"Python 3.11 or newer is needed and {old} is 3.9.2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_python_is_one_sentence() -> None:
    done = make("-B", ".venv/runtime.stamp", "PYTHON=python-that-is-not-there")
    assert done.returncode != 0
    assert "There is no python-that-is-not-there here: install Python 3.11 or newer" in done.stdout
