"""The compared servers: separate instances, on free ports, with temporary data."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil

from dev.apache_kafka import ApacheKafkaServer, fetch_apache_kafka
from dev.child import Child
from dev.ports import HOST, free_port
from dev.server import Server
from dev.stack import ROOT, system_postgres

#: The options of Kafka's own start script; `dev/` starts a smaller server, without the optimising compiler.
KAFKA_JVM_OPTIONS = [
    "-server",
    "-Xms1g",
    "-Xmx1g",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
]
REDIS_OPTIONS = {
    "save": "",
    # The closest to the others: written to a file before the answer, and to the disk every second.
    "appendonly": "yes",
    "appendfsync": "everysec",
    "daemonize": "no",
    "bind": HOST,
}
#: Durable by default. The two settings serve the measurement: executed statements, and commit times.
POSTGRES_OPTIONS = {"shared_preload_libraries": "pg_stat_statements", "track_commit_timestamp": "on"}


class ServerMissing(Exception):
    """A server's program is not installed; the text names its package."""


class RedisServer(Server):
    name = "Redis"

    def __init__(self, home: Path, *, port: int) -> None:
        options = {**REDIS_OPTIONS, "port": str(port), "dir": str(home)}
        command = [_program("redis-server", "redis-server")]
        for name, value in options.items():
            command += [f"--{name}", value]
        super().__init__(Child(self.name, command, log=home / "redis.log", cwd=home), home=home, port=port)

    def answers(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")


class RabbitServer(Server):
    """RabbitMQ with a separate Erlang port mapper, so that no process outlives it."""

    name = "RabbitMQ"

    def __init__(self, home: Path, *, port: int) -> None:
        self._mapper_port = free_port()
        environment = {
            **os.environ,
            "HOME": str(home),  # for the Erlang cookie
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq"),
        }
        program = _program("rabbitmq-server", "rabbitmq-server", also_in="/usr/lib/rabbitmq/bin")
        self._mapper = Child(
            "Erlang's port mapper",
            [_program("epmd", "erlang-base"), "-port", str(self._mapper_port), "-address", HOST],
            log=home / "epmd.log",
        )
        child = Child(self.name, [program], log=home / "rabbitmq.log", cwd=home, env=environment)
        super().__init__(child, home=home, port=port)

    def prepare(self) -> None:
        self._mapper.start()

    def answers(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=1.0) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return len(connection.recv(1)) == 1

    def stop(self) -> None:
        super().stop()
        self._mapper.stop()

    def kill(self) -> None:
        super().kill()
        self._mapper.kill()


class Servers:
    """The servers that are installed on this machine; use it as a context manager.

    Attributes:
      running: The running servers, by the names in `systems.py`.
      missing: The servers that are not installed, with the remedy.
      versions: The version that each program reports.
    """

    def __init__(self, home: Path, *, wanted: set[str]) -> None:
        self.running: dict[str, Server] = {}
        self.missing: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self._home = home
        self._wanted = wanted
        self._stack = ExitStack()

    def __enter__(self) -> Servers:
        makers: dict[str, Callable[[Path], Server]] = {
            "kafka": _new_kafka,
            "kafka-3000": lambda home: _new_kafka(home, {"group.initial.rebalance.delay.ms": "3000"}),
            "rabbitmq": lambda home: RabbitServer(home, port=free_port()),
            "redis": lambda home: RedisServer(home, port=free_port()),
            "postgresql": _new_postgres,
        }
        with ExitStack() as starting:
            for name, make in makers.items():
                if name in self._wanted:
                    self._start(name, make, starting)
            self._stack = starting.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def cpu_s(self, name: str) -> float:
        """The processor time that a server has used so far, its helpers included."""
        return cpu_s_of(self.running[name].child.pid)

    def _start(self, name: str, make: Callable[[Path], Server], starting: ExitStack) -> None:
        home = self._home / name
        home.mkdir()
        try:
            server = make(home)
        except (ServerMissing, RuntimeError) as error:
            self.missing[name] = str(error)
            return
        starting.callback(server.kill)
        server.start()
        self.running[name] = server
        self.versions[name] = _version_of(name)


def cpu_s_of(pid: int) -> float:
    """Processor seconds, user and system, of a process and its living descendants."""
    root = psutil.Process(pid)
    total_s = 0.0
    for process in [root, *root.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total_s += times.user + times.system
    return total_s


def _new_kafka(home: Path, properties: Mapping[str, str] | None = None) -> Server:
    jars = fetch_apache_kafka(Path(os.environ.get("DEV_DIR", ROOT / ".dev")))
    return ApacheKafkaServer(
        home, libs=jars, port=free_port(), properties=properties, jvm_options=KAFKA_JVM_OPTIONS
    )


def _new_postgres(home: Path) -> Server:
    return system_postgres(home / "postgres", port=free_port(), options=POSTGRES_OPTIONS)


def _version_of(name: str) -> str:
    if name.startswith("kafka"):
        pom = (ROOT / "dev" / "kafka" / "pom.xml").read_text(encoding="utf-8")
        found = re.search(r"<kafka\.version>(.+?)<", pom)
    elif name == "redis":
        found = re.search(r"v=(\S+)", _output("redis-server", "--version"))
    elif name == "postgresql":
        found = re.search(r"(\d[\d.]*)", _output("psql", "--version"))
    else:
        found = re.search(r"^(\d\S+)", _output("dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"))
    return found.group(1) if found else "unknown"


def _output(*command: str) -> str:
    program = shutil.which(command[0])
    if program is None:
        return ""
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    return done.stdout


def _program(name: str, package: str, *, also_in: str = "") -> str:
    found = (shutil.which(name, path=also_in) if also_in else None) or shutil.which(name)
    if found is None:
        raise ServerMissing(f"{name} is not installed (Debian: apt-get install {package})")
    return found
