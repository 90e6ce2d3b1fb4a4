"""The pages about the code name files, classes, members and log lines that exist."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

BROKER = Path(__file__).resolve().parent.parent.parent / "broker"
PAGES = [BROKER / "ARCHITECTURE.md", BROKER / "GLOSSARY.md", BROKER.parent / "CONTRIBUTING.md"]
#: Classes of Dramatiq, kafka-python and Python that the pages name.
FOREIGN = {
    "Callbacks", "ConsumerThread", "Empty", "GroupCallbacks", "Message", "MiddlewareError", "Pipelines",
    "PreparingRebalance", "Retries", "Thread", "WorkerThread",
}  # fmt: skip

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"[\w/]+(\.py|\.toml|/)")
_CLASS = re.compile(r"(?P<name>[A-Z][a-z]+[A-Za-z]*)(\.(?P<member>\w+))?")
_QUOTED = re.compile(r'^\| "([^"]+)" \|', re.MULTILINE)
_TERM = re.compile(r"^\*\*(.+?)\*\*", re.MULTILINE)


def code_of(page: Path) -> list[str]:
    return _CODE.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """The code of the broker, by file."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in BROKER.rglob("*.py")}


@functools.cache
def members_by_class() -> dict[str, set[str]]:
    """The methods, fields and attributes of each class of the broker, with the inherited ones."""
    members: dict[str, set[str]] = defaultdict(set)
    bases: dict[str, list[str]] = {}
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]
                members[node.name] |= _members(node)
    for name, parents in bases.items():
        for parent in parents:
            members[name] |= members.get(parent, set())
    return members


def _members(node: ast.ClassDef) -> set[str]:
    found = set()
    for child in ast.walk(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(child.name)
        elif isinstance(child, ast.AnnAssign | ast.Assign):
            targets = child.targets if isinstance(child, ast.Assign) else [child.target]
            found |= {t.id for t in targets if isinstance(t, ast.Name)}
            found |= {t.attr for t in targets if isinstance(t, ast.Attribute)}
    return found


def texts() -> list[str]:
    """Every text in the broker's code, in one piece where the code has several after one another."""
    nodes = (node for tree in trees().values() for node in ast.walk(tree))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_the_page_names_exist(page: Path) -> None:
    named = [code for code in code_of(page) if _PATH.fullmatch(code)]
    assert [n for n in named if not (BROKER / n).exists() and not (BROKER.parent / n).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_classes_and_members_that_the_page_names_exist(page: Path) -> None:
    known = members_by_class()
    unknown = []
    for code in code_of(page):
        found = _CLASS.fullmatch(code)
        if found is None or found["name"] in FOREIGN:
            continue
        if found["name"] not in known or (found["member"] and found["member"] not in known[found["name"]]):
            unknown.append(code)
    assert unknown == []


def test_the_log_lines_that_the_architecture_names_are_in_the_code() -> None:
    quoted = _QUOTED.findall(PAGES[0].read_text(encoding="utf-8"))
    assert quoted
    in_code = texts()
    assert [line for line in quoted if not any(line in text for text in in_code)] == []


def test_the_glossary_has_each_term_once_in_alphabetical_order() -> None:
    terms = [term.lower() for term in _TERM.findall(PAGES[1].read_text(encoding="utf-8"))]
    assert terms
    assert terms == sorted(set(terms))


def test_the_page_has_each_lock_of_the_broker() -> None:
    named = code_of(PAGES[0])
    locks = {
        f"{owner.name}.{node.targets[0].attr}"
        for path, tree in trees().items()
        if not {BROKER / "testing", BROKER / "console"} & {*path.parents}
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for node in ast.walk(owner)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Attribute)
        and ast.unparse(node.value) in {"threading.Lock()", "threading.RLock()"}
    }
    assert locks
    assert locks - {*named} == set()


def test_no_two_classes_of_the_broker_have_one_name() -> None:
    names = Counter(
        node.name for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    )
    assert names
    assert [name for name, count in names.items() if count > 1] == []


def test_the_glossary_defines_each_class_once() -> None:
    definitions = [_CODE.findall(text) for text in PAGES[1].read_text(encoding="utf-8").split("\n\n")]
    defined = Counter(code for codes in definitions for code in set(codes) if _CLASS.fullmatch(code))
    assert defined
    assert [name for name, count in defined.items() if count > 1] == []
