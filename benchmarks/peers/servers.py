"""The peers, each in its durable and in its default setting: how they are started and loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from peers.install import BIN, CLASSES, JARS, ROOT
from peers.processes import MissingError, Server, free_port, start

SERVE = "import sys; from penstock.server.cli import main; sys.exit(main())"
NAMES = {"PYTHONPATH": os.fspath(ROOT / "build" / "names")}
KAFKA = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={folder}/logs
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
"""
RABBIT_SCRIPT = "/usr/lib/rabbitmq/bin/rabbitmq-server"
RABBIT = """listeners.tcp.1 = 127.0.0.1:{port}
distribution.listener.interface = 127.0.0.1
disk_free_limit.absolute = 1GB
log.console = false
"""
ELASTIC = """include classpath("application.conf")
node-address {{ protocol = http, host = localhost, port = {port}, context-path = "" }}
rest-sqs {{ enabled = true, bind-port = {port}, bind-hostname = "127.0.0.1", sqs-limits = strict }}
rest-stats {{ enabled = false }}
messages-storage {{ enabled = {stored}, driver-class = "org.h2.Driver", username = "sa",
  password = "", uri = "jdbc:h2:{folder}/messages" }}
queues {{ bench {{ defaultVisibilityTimeout = 60 seconds }} }}
"""
ROCKET = """brokerClusterName=bench
brokerName=bench
brokerId=0
brokerRole=ASYNC_MASTER
flushDiskType={flush}
namesrvAddr=127.0.0.1:{names}
brokerIP1=127.0.0.1
listenPort={port}
haListenPort={copies}
bindAddress=127.0.0.1
storePathRootDir={folder}/store
autoCreateTopicEnable=true
"""
OPENS = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in
         ("java.nio", "sun.nio.ch", "java.lang", "java.util", "jdk.internal.ref")]


@dataclass(frozen=True)
class Peer:
    """A server in one setting; words(server) begins the command of its loader."""

    name: str
    setting: str
    durable: bool
    start: Callable[[ExitStack, Path, float], Server]
    words: Callable[[Server], list[str]]
    java: bool = False
    # The most that one request takes; of those that sync each message alone, what is done soon.
    batch: int = 1000

    @property
    def jvm(self) -> bool:
        """Whether the server compiles while it runs, and is slower at first."""
        return self.java or self.name == "elasticmq"

    @property
    def warm_up(self) -> float:
        """Seconds of each run that are not measured: a loader in a JVM is slow at first, too."""
        return 2.0 if self.java else 0.5


def _go(kind: str, *more: str) -> Callable[[Server], list[str]]:
    return lambda server: [os.fspath(BIN / "load"), "-kind", kind, "-address", server.address,
                           *more]


def _java(name: str, main: str) -> Callable[[Server], list[str]]:
    return lambda server: ["java", "-Xms256m", "-Xmx512m", *OPENS, "-cp",
                           f"{JARS / name}/*:{CLASSES}", main, server.address, server.topic]


def _penstock(stack: ExitStack, folder: Path, delay_ms: float) -> Server:
    port = free_port()
    words = [sys.executable, "-c", SERVE, "serve", "--data", f"{folder}/data",
             "--tcp", f"127.0.0.1:{port}", "--http", "127.0.0.1:0"]
    return start(stack, folder, words, port, delay_ms, **NAMES)


def _redis(policy: str) -> Callable[[ExitStack, Path, float], Server]:
    def begin(stack: ExitStack, folder: Path, delay_ms: float) -> Server:
        port = free_port()
        words = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir",
                 os.fspath(folder), "--save", "", "--appendonly", "yes", "--appendfsync", policy,
                 "--auto-aof-rewrite-percentage", "0"]
        return start(stack, folder, words, port, delay_ms)

    return begin


def _nats(always: bool) -> Callable[[ExitStack, Path, float], Server]:
    def begin(stack: ExitStack, folder: Path, delay_ms: float) -> Server:
        port = free_port()
        (folder / "nats.conf").write_text(
            f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder}/store"\n'
            + ("sync_interval: always\n" if always else "") + "}\n")
        return start(stack, folder, [os.fspath(BIN / "nats-server"), "-c", "nats.conf"], port,
                     delay_ms)

    return begin


def _beanstalkd(stack: ExitStack, folder: Path, delay_ms: float, *more: str) -> Server:
    port = free_port()
    return start(stack, folder, ["beanstalkd", "-l", "127.0.0.1", "-p", str(port), *more], port,
                 delay_ms)


def _beanstalkd_synced(stack: ExitStack, folder: Path, delay_ms: float) -> Server:
    return _beanstalkd(stack, folder, delay_ms, "-b", os.fspath(folder), "-f", "0")


def _rabbit(stack: ExitStack, folder: Path, delay_ms: float) -> Server:
    port, mapper = free_port(), free_port()
    (folder / "rabbitmq.conf").write_text(RABBIT.format(port=port))
    (folder / "enabled_plugins").write_text("[].\n")
    cookie = folder / ".erlang.cookie"
    cookie.write_text("penstockbench")
    cookie.chmod(0o400)
    at = {"HOME": folder, "RABBITMQ_MNESIA_BASE": folder / "mnesia",
          "RABBITMQ_LOG_BASE": folder / "logs", "RABBITMQ_CONFIG_FILE": folder / "rabbitmq.conf",
          "RABBITMQ_ENABLED_PLUGINS_FILE": folder / "enabled_plugins",
          "RABBITMQ_PID_FILE": folder / "pid", "RABBITMQ_CONF_ENV_FILE": "/dev/null"}
    if not Path(RABBIT_SCRIPT).exists():
        raise MissingError("rabbitmq-server is not installed")
    # Else the node starts one that outlives it.
    start(stack, folder, ["epmd", "-port", str(mapper), "-address", "127.0.0.1"], mapper)
    return start(stack, folder, [RABBIT_SCRIPT], port, delay_ms, ERL_EPMD_PORT=str(mapper),
                 ERL_EPMD_ADDRESS="127.0.0.1", RABBITMQ_NODENAME="bench@localhost",
                 RABBITMQ_DIST_PORT=str(free_port()),
                 **{name: os.fspath(path) for name, path in at.items()})


def _elastic(stored: bool) -> Callable[[ExitStack, Path, float], Server]:
    def begin(stack: ExitStack, folder: Path, delay_ms: float) -> Server:
        port = free_port()
        (folder / "elastic.conf").write_text(
            ELASTIC.format(port=port, folder=folder, stored=str(stored).lower()))
        (folder / "logback.xml").write_text(
            "<configuration><root level='ERROR'></root></configuration>\n")
        words = ["java", "-Xms512m", "-Xmx1g", f"-Dconfig.file={folder}/elastic.conf",
                 f"-Dlogback.configurationFile={folder}/logback.xml", "-cp",
                 f"{JARS / 'elasticmq'}/*", "org.elasticmq.server.Main"]
        return start(stack, folder, words, port, delay_ms)

    return begin


def _kafka(flush: bool) -> Callable[[ExitStack, Path, float], Server]:
    def begin(stack: ExitStack, folder: Path, delay_ms: float) -> Server:
        port = free_port()
        path = folder / "kafka.properties"
        path.write_text(KAFKA.format(port=port, controller=free_port(), folder=folder))
        java = ["java", "-Xms512m", "-Xmx512m", "-cp", f"{JARS / 'kafka'}/*"]
        _once([*java, "kafka.tools.StorageTool", "format", "-t", "cGVuc3RvY2tfYmVuY2hfMQ",
               "-c", os.fspath(path)])
        server = start(stack, folder, ["java", "-Xms1g", "-Xmx1g", "-cp", f"{JARS / 'kafka'}/*",
                                       "kafka.Kafka", os.fspath(path)], port, delay_ms)
        more = ["--config", "flush.messages=1"] if flush else []
        _once([*java, "org.apache.kafka.tools.TopicCommand", "--bootstrap-server",
               server.address, "--create", "--topic", server.topic, "--partitions", "1", *more])
        _once([*java, "kafka.admin.ConfigCommand", "--bootstrap-server", server.address,
               "--alter", "--entity-type", "groups", "--entity-name", f"share-{server.topic}",
               "--add-config", "share.auto.offset.reset=earliest"])
        return server

    return begin


def _rocket(flush: str) -> Callable[[ExitStack, Path, float], Server]:
    def begin(stack: ExitStack, folder: Path, delay_ms: float) -> Server:
        names, port = free_port(), free_port()
        (folder / "names.conf").write_text(
            f"listenPort={names}\nbindAddress=127.0.0.1\nkvConfigPath={folder}/kv.json\n")
        (folder / "broker.conf").write_text(
            ROCKET.format(flush=flush, names=names, port=port, copies=free_port(),
                          folder=folder))
        java = ["java", *OPENS, f"-Duser.home={folder}", "-cp", f"{JARS / 'rocketmq'}/*"]
        home = {"ROCKETMQ_HOME": os.fspath(folder)}
        start(stack, folder, [*java, "-Xmx256m", "org.apache.rocketmq.namesrv.NamesrvStartup",
                              "-c", f"{folder}/names.conf"], names, **home)
        broker = start(stack, folder, [
            *java, "-Xms1g", "-Xmx1g", "-XX:MaxDirectMemorySize=2g",
            "org.apache.rocketmq.broker.BrokerStartup", "-c", f"{folder}/broker.conf"], port,
            delay_ms, **home)
        # A client asks the name server, which knows the broker only once that has registered.
        time.sleep(3)
        return Server(f"127.0.0.1:{names}", broker.group)

    return begin


def _once(words: list[str]) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        raise MissingError(f"{words[0]} is not installed") from None
    if done.returncode:
        raise MissingError(f"{words[0]}: {(done.stderr or done.stdout).strip()[-200:]}")


PEERS = [
    Peer("penstock", "disk (default)", True, _penstock, _go("penstock")),
    Peer("penstock", "kernel", False, _penstock, _go("penstock", "-durability", "kernel")),
    Peer("redis", "appendfsync always", True, _redis("always"), _go("redis")),
    Peer("redis", "everysec (default)", False, _redis("everysec"), _go("redis")),
    Peer("nats", "sync_interval always", True, _nats(True), _go("nats"), batch=100),
    Peer("nats", "default", False, _nats(False), _go("nats")),
    Peer("kafka", "flush.messages=1", True, _kafka(True), _java("kafka", "KafkaLoad"), True),
    Peer("kafka", "acks=all (default)", False, _kafka(False), _java("kafka", "KafkaLoad"), True),
    Peer("rabbitmq", "quorum (default)", True, _rabbit, _go("rabbitmq")),
    Peer("rocketmq", "SYNC_FLUSH", True, _rocket("SYNC_FLUSH"), _java("rocketmq", "RocketLoad"),
         True, 256),
    Peer("rocketmq", "ASYNC_FLUSH (default)", False, _rocket("ASYNC_FLUSH"),
         _java("rocketmq", "RocketLoad"), True, 256),
    Peer("elasticmq", "H2 file, not synced", False, _elastic(True), _go("elasticmq")),
    Peer("elasticmq", "memory (default)", False, _elastic(False), _go("elasticmq")),
    Peer("beanstalkd", "-f 0", True, _beanstalkd_synced, _go("beanstalkd"), batch=100),
    Peer("beanstalkd", "memory (default)", False, _beanstalkd, _go("beanstalkd")),
]
