"""The broker as others get it: its wheel alone in an environment of its own.

Building and installing take a package index, so these tests run only when asked for: ``make test-package``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from dev.child import Child
from dev.stack import ROOT, Stack
from tests.waiting import wait_until

HELLO = Path(__file__).with_name("hello.py")
TESTS_OF_HELLO = Path(__file__).with_name("tests_of_hello.py")


def pinned(tool: str, requirements: str) -> str:
    """The version of a tool that this repository pins."""
    lines = (ROOT / requirements).read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"{tool}=="))


MYPY, PYTEST = pinned("mypy", "requirements-dev.txt"), pinned("pytest", "requirements.txt")

pytestmark = pytest.mark.timeout(900)


#: The end of a command's output, which names what failed.
READABLE_CHARS = 8_000

#: Of this repository, all that the contract suite imports except the broker.
WITHOUT_BROKER = ("tests", "dev", "db", "migrations")


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, f"{command}\n{said[-READABLE_CHARS:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not request.config.getoption("--package-index"):
        pytest.skip("it takes a package index; run with --package-index")
    home = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", home, ROOT, cwd=home)
    (wheel,) = home.glob("dramatiq_kafka_broker-*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an environment in which nothing but the wheel, mypy and pytest were asked for."""
    return make_environment(tmp_path_factory.mktemp("package"), wheel, MYPY, PYTEST)


@pytest.fixture(scope="module")
def environment_for_tests(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an environment with the wheel and all that the tests of this repository take."""
    return make_environment(tmp_path_factory.mktemp("tested"), wheel, "-r", ROOT / "requirements.txt")


def make_environment(home: Path, *requirements: str | Path) -> Path:
    venv.create(home / "venv", with_pip=True)
    run(home / "venv" / "bin" / "pip", "install", "--quiet", *requirements, cwd=home)
    return home / "venv"


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """A directory with the application alone, far from this repository's `broker`."""
    (tmp_path / "hello.py").write_bytes(HELLO.read_bytes())
    return tmp_path


def run_python(environment: Path, cwd: Path, arguments: Sequence[str]) -> str:
    return run(environment / "bin" / "python", *arguments, cwd=cwd)


def test_what_it_exports_is_what_the_repository_exports(environment: Path, application: Path) -> None:
    import broker

    listing = "import dramatiq_kafka_broker as b; print(*sorted(b.__all__))"
    assert run_python(environment, application, ["-c", listing]).split() == sorted(broker.__all__)


def test_its_version_is_the_distributions(environment: Path, application: Path) -> None:
    versions = (
        "from importlib.metadata import version; from dramatiq_kafka_broker.version import VERSION;"
        "print(version('dramatiq-kafka-broker'), VERSION)"
    )
    installed, said = run_python(environment, application, ["-c", versions]).split()
    assert installed == said


def test_the_command_line_comes_with_its_extra_and_names_it_without(
    environment: Path, wheel: Path, tmp_path: Path
) -> None:
    without = subprocess.run([environment / "bin" / "dkb"], capture_output=True, text=True, check=False)
    assert (without.returncode, without.stdout) == (1, "")
    assert without.stderr == "dkb: it needs the package typer: pip install 'dramatiq-kafka-broker[cli]'\n"
    with_extra = make_environment(tmp_path, f"{wheel}[cli]")
    for name in ("dkb", "dramatiq-kafka-broker"):
        assert "top" in run(with_extra / "bin" / name, "--help", cwd=tmp_path)
    assert "threads" in run(
        with_extra / "bin" / "dkb", "plan", "--rate", "10", "--task-ms", "10", cwd=tmp_path
    )


def test_a_typed_application_passes_a_strict_type_checker(environment: Path, application: Path) -> None:
    assert "Success" in run_python(environment, application, ["-m", "mypy", "--strict", "hello.py"])


def test_the_contract_suite_passes_on_it_in_memory(environment_for_tests: Path, tmp_path: Path) -> None:
    for name in WITHOUT_BROKER:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    printed = run(
        *(environment_for_tests / "bin" / "python", "-m", "pytest", "-p", "tests.package.installed_broker"),
        *("-p", "no:dramatiq_kafka_broker"),  # the entry point: tests/conftest.py loads the same plugin
        *("tests/broker/contract", "--without-servers", "-rfE", "--tb=short", "-n", "2"),
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert f"broker: {environment_for_tests}" in printed
    assert " passed" in printed.splitlines()[-1]


def test_pytest_finds_the_kit_by_its_entry_point_and_runs_an_applications_tests(
    environment: Path, application: Path
) -> None:
    (application / "test_hello.py").write_bytes(TESTS_OF_HELLO.read_bytes())
    done = subprocess.run(
        [environment / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=application,
        env={"PATH": os.environ["PATH"], "SERVERS": "nowhere:9092", "NAMESPACE": "", "GREETING": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_kit_is_imported_by_nobody_who_does_not_ask_for_it(environment: Path, application: Path) -> None:
    code = (
        "import sys, dramatiq_kafka_broker; print('dramatiq_kafka_broker.testing' in sys.modules);"
        "import dramatiq_kafka_broker.testing; print('pytest' in sys.modules)"
    )
    assert run_python(environment, application, ["-c", code]).split() == ["False", "False"]


@pytest.fixture
def worker(environment: Path, application: Path, stack: Stack, namespace: str) -> Iterator[Child]:
    child = Child(
        "hello",
        [environment / "bin" / "dramatiq", "hello", "--processes", "1", "--threads", "2"],
        log=application / "worker.log",
        env=variables(application, stack, namespace),
        cwd=application,
    )
    yield child
    child.kill()


def variables(application: Path, stack: Stack, namespace: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "SERVERS": stack.bootstrap_servers,
        "NAMESPACE": namespace,
        "GREETING": str(application / "greeting"),
        "XDG_CACHE_HOME": str(application),
    }


def test_its_worker_runs_what_its_application_sends(
    environment: Path, application: Path, stack: Stack, namespace: str, worker: Child
) -> None:
    worker.start()
    subprocess.run(
        [environment / "bin" / "python", "hello.py"],
        cwd=application,
        env=variables(application, stack, namespace),
        check=True,
    )
    greeting = application / "greeting"
    wait_until(
        lambda: greeting.exists() and greeting.read_text(encoding="utf-8") == "Hello, world!",
        deadline_s=60,
        what="the greeting",
    )
