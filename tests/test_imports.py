"""The imports that an import linter cannot check alone: `broker` may use few packages and no others."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BROKER_MAY_IMPORT = sys.stdlib_module_names | {"cronsim", "broker", "dramatiq", "kafka", "tenacity"}

#: Only pytest loads it.
PYTEST_PLUGIN = "broker/testing/plugin.py"
#: The command line needs the extra `cli`; nothing else of the broker imports it.
COMMAND_LINE = "broker/console/"
COMMAND_LINE_MAY_IMPORT = {"click", "rich", "typer"}
#: The exporter needs the extra `metrics`; only the command line imports it.
EXPORTER = "broker/metrics/"
EXPORTER_MAY_IMPORT = {"prometheus_client"}
#: The web console needs the extra `console`.
WEB_CONSOLE = "broker/console/web/"
WEB_CONSOLE_MAY_IMPORT = {"argon2", "jinja2", "sanic"}
#: The middleware of the extra `otel`, which only applications import.
TELEMETRY = "broker/telemetry/"
TELEMETRY_MAY_IMPORT = {"opentelemetry"}


def imported_packages(source: str) -> Iterator[str]:
    """Top-level name of everything that `source` imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def test_broker_imports_few_packages_its_plugin_pytest_and_its_command_line_typer() -> None:
    files = sorted((ROOT / "broker").rglob("*.py"))
    assert files, "there is no broker/ to check"
    strangers = {
        f"{file.relative_to(ROOT)} imports {package}"
        for file in files
        for package in imported_packages(file.read_text(encoding="utf-8"))
        if package not in BROKER_MAY_IMPORT
        if not (package in COMMAND_LINE_MAY_IMPORT and COMMAND_LINE in f"{file.relative_to(ROOT)}")
        if not (package in EXPORTER_MAY_IMPORT and EXPORTER in f"{file.relative_to(ROOT)}")
        if not (package in WEB_CONSOLE_MAY_IMPORT and WEB_CONSOLE in f"{file.relative_to(ROOT)}")
        if not (package in TELEMETRY_MAY_IMPORT and TELEMETRY in f"{file.relative_to(ROOT)}")
    }
    assert strangers == {f"{PYTEST_PLUGIN} imports pytest"}


@pytest.mark.parametrize(
    "source",
    ["import sqlalchemy", "import db.engine as e", "def f():\n    from settings import get_settings"],
)
def test_an_import_of_something_else_is_noticed_wherever_it_stands(source: str) -> None:
    assert set(imported_packages(source)) - BROKER_MAY_IMPORT


def test_relative_imports_are_the_packages_own() -> None:
    assert list(imported_packages("from . import errors\nfrom .topics import Topic")) == []


def test_no_class_name_occurs_twice_in_the_service() -> None:
    files = [
        file
        for package in ("api", "db", "dev", "scoring", "submissions", "tasks")
        for file in (ROOT / package).rglob("*.py")
    ]
    assert files
    classes = Counter(
        node.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in classes.items() if count > 1] == []
