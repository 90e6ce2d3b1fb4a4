"""docs/from-celery.md: its tests pass, and its code for Celery is Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.test_testing_page import files_of, run

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "from-celery.md"
_CELERY = re.compile(r"^```python\n# Celery\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)

#: The features of Celery that the page has to have, and a word of each.
FEATURES = [
    "chain(", "group(", "chord(", "beat_schedule", "revoke(", "rate_limit", "inspect()", "app.control",
    "soft_time_limit", "time_limit", "expires", "acks_late", "autoretry_for", "priority", "task_routes",
    "result.get", "task_always_eager", "task_failure.connect", "django.conf",
]  # fmt: skip


def celery_blocks() -> list[str]:
    return [found["code"] for found in _CELERY.finditer(PAGE.read_text(encoding="utf-8"))]


@pytest.fixture
def files() -> dict[str, str]:
    found = files_of(_CELERY.sub("", PAGE.read_text(encoding="utf-8")))
    del found["settings.py"]
    return found


@pytest.mark.slow
def test_every_test_of_the_page_passes(files: dict[str, str], tmp_path: Path) -> None:
    number = len(re.findall(r"^def test_", files["test_tasks.py"], re.MULTILINE))
    done = run(tmp_path, files)
    assert number >= 20
    assert f"{number} passed" in done.stdout, done.stdout + done.stderr


def test_every_feature_is_shown_in_celerys_code_which_is_python() -> None:
    blocks = celery_blocks()
    for code in blocks:
        compile(code, PAGE.name, "exec")
    assert [word for word in FEATURES if word not in "".join(blocks)] == []


def test_the_settings_for_django_are_python() -> None:
    settings = files_of(_CELERY.sub("", PAGE.read_text(encoding="utf-8")))["settings.py"]
    names: dict[str, object] = {}
    exec(compile(settings, "settings.py", "exec"), names)
    assert "DRAMATIQ_BROKER" in names
