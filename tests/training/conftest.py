"""A small model, trained once for all tests that need one: a few seconds."""

from pathlib import Path

import pytest

from training.__main__ import main as train

SMALL = ["--ads", "400", "--seed", "5"]


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "small_model" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("small model"))  # trained by one process only


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "model.pkl"
    assert train([*SMALL, "--out", str(path)]) == 0
    return path
