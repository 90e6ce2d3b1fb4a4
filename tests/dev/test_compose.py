"""docker-compose.yml and the Dockerfile, without Docker: what they say, and their commands, run."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import make_url

from db.engine import make_engine, transaction
from db.items import load_ads
from dev.child import Child
from dev.ports import free_port
from dev.postgres import create_database, drop_database
from dev.stack import ROOT, Stack
from tests.test_imports import PYTEST_PLUGIN, imported_packages
from tests.waiting import wait_until
from training.sample_ads import sample_ads

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STAGES = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
OWN = ("migrations", "api", "worker")


def published(service: str) -> set[int]:
    """Ports on this machine."""
    return {int(port.split(":")[-2]) for port in SERVICES[service].get("ports", [])}


def test_the_servers_have_the_ports_that_the_readme_gives() -> None:
    assert published("postgres") == {5433}
    assert published("redpanda") == {9092}
    assert published("console") == {8080}


def test_nothing_is_reachable_from_other_machines() -> None:
    assert all(
        port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.get("ports", [])
    )


def test_the_default_database_url_needs_no_password() -> None:
    environment = SERVICES["postgres"]["environment"]
    assert environment == {
        "POSTGRES_USER": "user",
        "POSTGRES_DB": "moderation",
        "POSTGRES_HOST_AUTH_METHOD": "trust",
    }


def test_images_are_pinned() -> None:
    images = [service["image"] for service in SERVICES.values() if "build" not in service]
    images += [stage.split()[0] for stage in STAGES]
    assert all(re.search(r":v?\d+\.\d+", image) for image in images)


def test_only_the_servers_start_without_the_profile() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {
        "postgres",
        "redpanda",
        "console",
    }
    assert all(SERVICES[name]["profiles"] == ["app"] for name in OWN)


def test_servers_keep_their_data_in_named_volumes_and_say_when_they_are_healthy() -> None:
    for name in ("postgres", "redpanda"):
        (volume,) = SERVICES[name]["volumes"]
        assert volume.split(":")[0] in COMPOSE["volumes"]
        assert "healthcheck" in SERVICES[name]


def test_the_worker_and_the_api_are_started_again_and_wait_for_the_migrations() -> None:
    for name in ("api", "worker"):
        assert SERVICES[name]["restart"] == "unless-stopped"
        assert SERVICES[name]["depends_on"]["migrations"] == {"condition": "service_completed_successfully"}


def test_the_image_has_two_stages_and_does_not_run_as_root() -> None:
    assert len(STAGES) == 2
    assert re.search(r"^USER (?!root|0)\w+", STAGES[-1], re.MULTILINE)


def copied() -> list[str]:
    """Paths of this tree that the last stage has, in the image under the same names."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", STAGES[-1], re.MULTILINE)
    return [path.rstrip("/") for line in lines for path in line.split()[:-1]]


def test_what_the_dockerfile_copies_is_let_through_to_the_builder() -> None:
    let_through = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(let_through) == sorted([*copied(), "requirements-service.txt"])


@pytest.mark.slow
def test_the_image_installs_whatever_the_copied_code_imports() -> None:
    pins = (ROOT / "requirements-service.txt").read_text(encoding="utf-8")
    installed = {normalised(name) for name in re.findall(r"^([\w.-]+)(?:\[.*?\])?==", pins, re.MULTILINE)}
    own = {Path(path).stem for path in copied()}
    files = [
        file
        for path in copied()
        for file in ([ROOT / path] if path.endswith(".py") else (ROOT / path).rglob("*.py"))
    ]
    files.remove(ROOT / PYTEST_PLUGIN)
    imported = {package for file in files for package in imported_packages(file.read_text(encoding="utf-8"))}
    distributions = importlib.metadata.packages_distributions()
    missing = {
        package
        for package in imported - sys.stdlib_module_names - own
        if not installed.intersection(map(normalised, distributions.get(package, [])))
    }
    assert not missing


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with exactly the files that the image has in /app."""
    app = tmp_path_factory.mktemp("app")
    for path in copied():
        source = ROOT / path
        if source.is_dir():
            shutil.copytree(source, app / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, app / path)
    return app


@pytest.fixture
def fresh_database(stack: Stack) -> Iterator[str]:
    name = f"{make_url(stack.database_url).database}_compose"
    create_database(stack.database_url, name)
    yield make_url(stack.database_url).set(database=name).render_as_string(hide_password=False)
    drop_database(stack.database_url, name)


def test_migrations_api_and_worker_of_compose_moderate_an_ad(
    image: Path, stack: Stack, fresh_database: str, namespace: str, tmp_path: Path
) -> None:
    port = free_port()

    def container(service: str) -> Child:
        environment: dict[str, str] = {
            **SERVICES[service]["environment"],
            # What the network of compose would resolve, and what only a test needs.
            "DATABASE_URL": fresh_database,
            "KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
            "KAFKA_NAMESPACE": namespace,
            "API_PORT": str(port),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }
        assert set(SERVICES[service]["environment"]) >= {
            "DATABASE_URL",
            "KAFKA_BOOTSTRAP_SERVERS",
            "MODEL_PATH",
        }
        command = [argument.replace("$$", "$") for argument in SERVICES[service]["command"]]
        child = Child(service, command, log=tmp_path / f"{service}.log", env=environment, cwd=image)
        child.start()
        return child

    migrations = container("migrations")
    assert migrations.wait(30) == 0, migrations.tail()
    engine = make_engine(fresh_database)
    with transaction(engine) as connection:
        load_ads(connection, sample_ads(3, seed=1))
    engine.dispose()
    api, worker = container("api"), container("worker")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

            def ready() -> bool:
                api.check()
                try:
                    return client.get("/readyz").is_success
                except httpx.TransportError:
                    return False

            wait_until(ready, deadline_s=60, what="the API")
            task_id = client.post("/async_predict", params={"item_id": 1}).json()["task_id"]

            def completed() -> bool:
                worker.check()
                return bool(client.get(f"/moderation_result/{task_id}").json()["status"] == "completed")

            wait_until(completed, deadline_s=60, what="the verdict")
    finally:
        api.kill()
        worker.stop()
