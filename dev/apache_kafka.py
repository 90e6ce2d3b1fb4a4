"""Apache Kafka from the artifacts in dev/kafka/pom.xml: one node, or a cluster.

Every node is both a broker and a controller.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dev.child import Child, ChildDied
from dev.kafka_protocol import brokers_of, cluster_answers
from dev.ports import HOST, free_port
from dev.server import Server
from dev.waiting import wait_until

CONFIG = Path(__file__).with_name("kafka")
#: Names the version of Apache Kafka that is fetched and started, in place of that of the pom.
VERSION_VARIABLE = "KAFKA_VERSION"
#: For one node in tests: little memory, a quick start, and few compiler threads on two cores.
JVM_OPTIONS = [
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
]

PROPERTIES = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    # One node cannot replicate; few partitions make a quick start.
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # The use of a missing topic is an error, as on most clusters.
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # Tests of takeover need sessions shorter than the default of 6 s.
    "group.min.session.timeout.ms": "1000",
    # After a crash a node can join again only after its old session, by default 9 s.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    "log.cleaner.backoff.ms": "1000",
}
#: The properties of a cluster of three or more nodes, in place of those above.
CLUSTER_PROPERTIES = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    # The defaults of a cluster: tests measure the wait of clients after a node's death.
    "broker.session.timeout.ms": "9000",
    "broker.heartbeat.interval.ms": "2000",
}


class ApacheKafkaServer(Server):
    """An Apache Kafka whose log outlives `stop` and `kill`.

    Parameters:
      home: Directory for its log directory, configuration and output.
      libs: Directory of jars, see `fetch_apache_kafka`.
      port: Of the plaintext listener.
      listeners: Further listeners, name to security protocol, such as ``{"SASL": "SASL_PLAINTEXT"}``; each
        gets a free port, see `address_of`.
      properties: Further lines of server.properties, such as the JAAS configuration of a SASL listener.
      jvm_options: Options of the Java virtual machine.
      node: Its number in its cluster.
      controllers: The controllers' addresses of the whole cluster, by node number; None for this node alone.
      cluster_id: As StorageTool takes it; None for a new one.
    """

    name = "Apache Kafka"

    def __init__(
        self,
        home: Path,
        *,
        libs: Path,
        port: int,
        listeners: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        jvm_options: Sequence[str] = JVM_OPTIONS,
        node: int = 1,
        controllers: Mapping[int, str] | None = None,
        cluster_id: str | None = None,
    ) -> None:
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **(listeners or {})}
        self._ports = {"PLAINTEXT": port, **{name: free_port() for name in protocols if name != "PLAINTEXT"}}
        if controllers is not None:
            self._ports["CONTROLLER"] = int(controllers[node].rpartition(":")[2])
        self._cluster_id = cluster_id or new_cluster_id()
        self._jvm_options = jvm_options
        self._java = self._java_of(libs)
        self._properties = {
            **PROPERTIES,
            "log.dirs": str(home / "log"),
            "node.id": str(node),
            "controller.quorum.voters": ",".join(
                f"{number}@{address}"
                for number, address in (controllers or {node: self.address_of("CONTROLLER")}).items()
            ),
            "listeners": self._listing(list(protocols)),
            "advertised.listeners": self._listing([name for name in protocols if name != "CONTROLLER"]),
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            **(properties or {}),
        }
        super().__init__(self._child_in(home), home=home, port=port)

    def install(self, libs: Path) -> None:
        """Let the next start use the jars of another version. The server must be stopped."""
        assert not self.is_running
        self._java = self._java_of(libs)
        self.child = self._child_in(self.home)

    def raise_features(self, version: str) -> None:
        """Let the cluster use the formats of a version that all of its nodes run, as kafka-features.sh does.

        Raises:
          RuntimeError: Kafka refuses it; the text has its answer.
        """
        to = ["upgrade", "--release-version", version]
        self.run_tool("org.apache.kafka.tools.FeatureCommand", "--bootstrap-server", self.address, *to)

    def run_tool(self, tool: str, *arguments: str) -> str:
        """Run the Java class of one of Kafka's scripts, and return what it prints.

        Raises:
          RuntimeError: It fails; the text has its output.
        """
        done = subprocess.run(
            [*self._java, tool, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{tool} {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def _java_of(self, libs: Path) -> list[str]:
        return [java_program(), "-cp", f"{CONFIG}{os.pathsep}{libs}/*", *self._jvm_options]

    def _child_in(self, home: Path) -> Child:
        command = [*self._java, "kafka.Kafka", str(home / "server.properties")]
        return Child(self.name, command, log=home / "kafka.log", cwd=home, orphan_signal=signal.SIGKILL)

    def address_of(self, listener: str) -> str:
        """``host:port`` of one listener."""
        return f"{HOST}:{self._ports[listener]}"

    def prepare(self) -> None:
        if (self.home / "log" / "meta.properties").exists():
            return
        self.home.mkdir(parents=True, exist_ok=True)
        config = self.home / "server.properties"
        config.write_text(
            "".join(f"{name}={value}\n" for name, value in self._properties.items()), encoding="utf-8"
        )
        done = subprocess.run(
            [
                *self._java,
                "kafka.tools.StorageTool",
                "format",
                f"--cluster-id={self._cluster_id}",
                "-c",
                config,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ChildDied(f"formatting Kafka's storage failed:\n{done.stdout}{done.stderr}")

    def answers(self) -> bool:
        return cluster_answers(self.address)

    def _listing(self, names: list[str]) -> str:
        return ",".join(f"{name}://{self.address_of(name)}" for name in names)


class ApacheKafkaCluster:
    """Several Apache Kafkas that replicate. A test may stop or pause each node alone.

    Parameters:
      make_home: Makes a directory for one node.
      libs: Directory of jars, see `fetch_apache_kafka`.
      size: The number of nodes; fewer than three do not survive the loss of one.
      listeners: Further listeners of every node, as those of `ApacheKafkaServer`.
      properties: Further lines of every node's server.properties.

    Attributes:
      nodes: The servers by node number, 1 and up.
    """

    def __init__(
        self,
        make_home: Callable[[], Path],
        *,
        libs: Path,
        size: int = 3,
        listeners: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        controllers = {node: f"{HOST}:{free_port()}" for node in range(1, size + 1)}
        cluster_id = new_cluster_id()
        self.nodes = {
            node: ApacheKafkaServer(
                make_home(),
                libs=libs,
                port=free_port(),
                listeners=listeners,
                properties={**CLUSTER_PROPERTIES, **(properties or {})},
                node=node,
                controllers=controllers,
                cluster_id=cluster_id,
            )
            for node in controllers
        }

    @property
    def address(self) -> str:
        """``host:port`` of every node, separated by commas."""
        return ",".join(server.address for server in self.nodes.values())

    def address_of(self, listener: str) -> str:
        """The same of one listener."""
        return ",".join(server.address_of(listener) for server in self.nodes.values())

    def start(self) -> None:
        """Start the stopped nodes, resume the paused ones, and return once every node knows all others.

        Raises:
          ChildDied, TimeoutError: As `Server.start`.
        """
        stopped = [server for server in self.nodes.values() if not server.is_running]
        for server in self.nodes.values():
            if server not in stopped:
                server.resume()
        # All start before the first is waited for: a single node is no majority and does not answer.
        for server in stopped:
            server.launch()
        for server in stopped:
            server.wait_until_it_answers()
        expected = {server.address for server in self.nodes.values()}
        wait_until(
            lambda: all(brokers_of(server.address) == expected for server in self.nodes.values()),
            deadline_s=ApacheKafkaServer.start_timeout_s,
            what="every node to know every other",
        )

    def kill(self) -> None:
        """End every node as a crash would (SIGKILL)."""
        for server in self.nodes.values():
            server.kill()


def new_cluster_id() -> str:
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def java_program() -> str:
    """Return the path of Java.

    Raises:
      RuntimeError: Java is missing; the text names the package to install.
    """
    home = os.environ.get("JAVA_HOME")
    program = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if program is None:
        raise RuntimeError(
            "Apache Kafka needs Java 17 or newer: install it (Debian: apt-get install "
            "openjdk-17-jre-headless), or name a running Kafka in KAFKA_BOOTSTRAP_SERVERS"
        )
    return program


def fetch_apache_kafka(cache: Path, version: str | None = None) -> Path:
    """Return the directory of the jars. The first call fetches about 120 MB from Maven Central into `cache`.

    Parameters:
      version: Of Apache Kafka; by default that of the variable KAFKA_VERSION, or of dev/kafka/pom.xml.

    Raises:
      RuntimeError: Maven is missing or failed; the text has its last lines.
    """
    pom = CONFIG / "pom.xml"
    version = version or os.environ.get(VERSION_VARIABLE)
    text = pom.read_text(encoding="utf-8")
    if version and f"<kafka.version>{version}<" in text:
        version = None  # it is the default
    name = f"kafka-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    libs = cache / (f"{name}-{version}" if version else name)
    if libs.exists():
        return libs
    maven = shutil.which("mvn")
    if maven is None:
        raise RuntimeError("Fetching Apache Kafka needs Maven: install it (Debian: apt-get install maven)")
    cache.mkdir(parents=True, exist_ok=True)
    half_done = Path(tempfile.mkdtemp(dir=cache, prefix="fetching-"))
    command = [
        maven,
        "-B",
        "-q",
        "-f",
        str(pom),
        "dependency:copy-dependencies",
        f"-DoutputDirectory={half_done}",
        *([f"-Dkafka.version={version}"] if version else []),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(half_done)
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise RuntimeError(f"{' '.join(command)} failed:\n{tail}")
    try:
        half_done.rename(libs)
    except OSError:
        if not libs.exists():  # otherwise another process fetched them meanwhile
            raise
        shutil.rmtree(half_done)
    return libs
