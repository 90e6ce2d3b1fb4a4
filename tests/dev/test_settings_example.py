"""`.env.example` says what can be set, no more and no less."""

from __future__ import annotations

import os
import re

import pytest
from pydantic import ValidationError

from dev.stack import ROOT
from settings import Settings

EXAMPLE = ROOT / ".env.example"
NAMES = re.findall(r"^(\w+)=", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_setting_is_in_the_example_and_nothing_else() -> None:
    assert sorted(NAMES) == sorted(name.upper() for name in Settings.model_fields)


def test_the_examples_values_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) & set(NAMES):
        monkeypatch.delenv(name)
    assert Settings(_env_file=EXAMPLE) == Settings(_env_file=None)  # type: ignore[call-arg]


@pytest.mark.parametrize("url", ["javascript:alert(1)", "console.example", "http:///", "http:// x"])
def test_a_console_that_is_no_page_of_the_web_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="is no URL such as"):
        Settings(console_url=url)
