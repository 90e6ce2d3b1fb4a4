"""The broker as others get it: its wheel alone in an environment of its own.

Building and installing take a package index, so these tests run only when asked for: ``make test-package``.
"""

from __future__ import annotations

import os
import subprocess
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dev.child import Child
from dev.stack import ROOT, Stack
from tests.waiting import wait_until

HELLO = Path(__file__).with_name("hello.py")
MYPY = next(
    line
    for line in (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    if line.startswith("mypy==")
)

pytestmark = pytest.mark.timeout(600)


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an environment in which nothing but the wheel and mypy were asked for."""
    if not request.config.getoption("--package-index"):
        pytest.skip("it takes a package index; run with --package-index")
    home = tmp_path_factory.mktemp("package")
    venv.create(home / "venv", with_pip=True)
    pip = home / "venv" / "bin" / "pip"
    run(pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", home, ROOT, cwd=home)
    (wheel,) = home.glob("dramatiq_kafka_broker-*.whl")
    run(pip, "install", "--quiet", wheel, MYPY, cwd=home)
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


def test_a_typed_application_passes_a_strict_type_checker(environment: Path, application: Path) -> None:
    assert "Success" in run_python(environment, application, ["-m", "mypy", "--strict", "hello.py"])


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
