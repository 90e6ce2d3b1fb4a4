"""docs/testing.md: its tests pass, and they fail when the application that they test is broken."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import broker.testing

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "testing.md"

_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (?P<name>\w+\.py)\n")
_NAMES = re.compile(r"`(\w+)(?:\(.*?\))?`")


def files_of(page: str) -> dict[str, str]:
    """The files that the page's blocks make up, by name."""
    files: dict[str, str] = defaultdict(str)
    for block in _BLOCK.finditer(page):
        named = _FILE.match(block["code"])
        assert named is not None, f"a block does not name its file: {block['code'][:60]!r}"
        files[named["name"]] += block["code"].removeprefix(named[0]) + "\n\n"
    return files


def run(home: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the tests of the files in an environment where the distribution has the name that it installs."""
    (home / "dramatiq_kafka_broker").symlink_to(ROOT / "broker")
    for name, text in files.items():
        (home / name).write_text(text, encoding="utf-8")
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "dramatiq_kafka_broker.testing.plugin"),
            *("-p", "no:cacheprovider", "-q", "--tb=line", "-W", "ignore::DeprecationWarning"),
            *sorted(name for name in files if name.startswith("test_")),
        ],
        cwd=home,
        env={"PATH": "", "PYTHONPATH": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return files_of(PAGE.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_every_test_of_the_page_passes(files: dict[str, str], tmp_path: Path) -> None:
    done = run(tmp_path, files)
    number = sum(len(re.findall(r"^ *def test_", text, re.MULTILINE)) for text in files.values())
    assert number == 20
    assert f"{number} passed" in done.stdout, done.stdout + done.stderr


#: What breaks the application, and the test of the page that notices.
BREAKAGES = [
    ("retry=retry_if_temporary", "retry=tenacity.retry_never", "test_a_charge_is_repeated_after_a_minute"),
    ("stop_after_attempt(3)", "stop_after_attempt(4)", "test_a_charge_is_given_up_after_three_attempts"),
    ("delay=24 * 3600 * 1000", "delay=1000", "test_a_reminder_follows_a_day_later"),
    (', partition_key=lambda order, step: f"order-{order}"', "", "test_an_order_is_the_key_of_its_steps"),
    ("amount * 120", "amount * 119", "test_the_total_of_an_order_contains_the_tax"),
    ("raise PermanentError(", "log.append(", "test_an_unknown_order_is_a_dead_letter_at_once"),
    ("max_retries=0", "max_retries=1", "test_a_refund_can_be_redriven"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("working", "broken", "noticed_by"), BREAKAGES, ids=[b[2] for b in BREAKAGES])
def test_a_broken_application_fails_a_test_of_the_page(
    working: str, broken: str, noticed_by: str, files: dict[str, str], tmp_path: Path
) -> None:
    assert working in files["shop.py"]
    kept = ("conftest.py", "test_shop.py")
    changed = {name: files[name] for name in kept} | {"shop.py": files["shop.py"].replace(working, broken)}
    done = run(tmp_path, changed)
    assert f"FAILED test_shop.py::{noticed_by}" in done.stdout, done.stdout + done.stderr


def test_the_reference_has_every_exported_name() -> None:
    reference = PAGE.read_text(encoding="utf-8").partition("## Reference")[2]
    assert set(broker.testing.__all__) <= set(_NAMES.findall(reference))


@pytest.mark.slow
def test_the_message_of_a_failed_assertion_is_the_one_on_the_page(
    files: dict[str, str], tmp_path: Path
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    [shown] = re.findall(r"^```\n(AssertionError.*?)^```$", page, re.MULTILINE | re.DOTALL)
    failing = (
        "from dramatiq_kafka_broker.testing import assert_enqueued, drain\n"
        "from shop import charge, remind\n"
        "def test_it():\n    charge.send(1); drain()\n"
        "    try: assert_enqueued(remind, args=(2,))\n"
        f"    except AssertionError as e: assert f'AssertionError: {{e}}\\n' == {shown!r}\n"
        "    else: raise RuntimeError\n"
    )
    done = run(tmp_path, {name: files[name] for name in ("shop.py", "conftest.py")} | {"test_it.py": failing})
    assert "1 passed" in done.stdout, done.stdout
