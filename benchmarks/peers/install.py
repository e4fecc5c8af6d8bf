"""Get the peers from their registries, below build/peers and with apt; what fails is named.

    python benchmarks/peers/install.py

Debian's packages (RabbitMQ, Redis, beanstalkd, wrk) are installed only for root, where apt-get is;
nats-server is built by go, the Java ones come through mvn, the Python ones are in the group
`peers` of pyproject.toml.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BASE = ROOT / "build" / "peers"
BIN, JARS, CLASSES = BASE / "bin", BASE / "jars", BASE / "classes"
NATS = "github.com/nats-io/nats-server/v2@v2.15.2"
PACKAGES = {"redis-server": "redis-server", "redis-benchmark": "redis-tools",
            "rabbitmq-server": "rabbitmq-server", "beanstalkd": "beanstalkd"}
TIMEOUT_S = 900


class FailedError(Exception):
    """A peer that cannot be had here, and why."""


def run(words: list[str], folder: Path = HERE, **environment: str) -> None:
    if not shutil.which(words[0]):
        raise FailedError(f"{words[0]} is not installed")
    try:
        done = subprocess.run(words, cwd=folder, env={**os.environ, **environment},
                              capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise FailedError(f"{words[0]} took more than {TIMEOUT_S} s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise FailedError(f"{words[0]}: {lines[-1][:200]}")


def packages() -> None:
    """Whatever of Debian's packages is not on the path."""
    wanted = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if not wanted:
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise FailedError(f"not installed, and only root can: {' '.join(wanted)}")
    run(["apt-get", "update"])
    run(["apt-get", "install", "-y", "--no-install-recommends", *wanted],
        DEBIAN_FRONTEND="noninteractive")


def nats() -> None:
    if not (BIN / "nats-server").exists():
        run(["go", "install", NATS], GOBIN=os.fspath(BIN))


def loader() -> None:
    """Our loader for the peers that have no Java."""
    run(["go", "build", "-o", os.fspath(BIN / "load"), "."], HERE / "load")


def java(name: str, *sources: str) -> Callable[[], None]:
    """The jars of a peer, and our loader for it compiled against them."""
    def get() -> None:
        if not (JARS / name).exists():
            run(["mvn", "-q", "-B", "-f", f"java/{name}.xml", "dependency:copy-dependencies",
                 "-DincludeScope=runtime", f"-DoutputDirectory={JARS / name}"])
        if sources:
            run(["javac", "-d", os.fspath(CLASSES), "-cp", f"{JARS / name}/*", *sources],
                HERE / "java")

    return get


STEPS: dict[str, Callable[[], None]] = {
    "Debian's packages": packages,
    "loader": loader,
    "nats": nats,
    "kafka": java("kafka", "Load.java", "KafkaLoad.java"),
    "rocketmq": java("rocketmq", "Load.java", "RocketLoad.java"),
    "elasticmq": java("elasticmq"),
    "chronicle": java("chronicle", "ChronicleLoad.java"),
}


def main() -> int:
    """Take every step; what failed is printed and kept in build/peers/missing.json."""
    BIN.mkdir(parents=True, exist_ok=True)
    missing: dict[str, str] = {}
    for name, step in STEPS.items():
        print(f"· {name}", flush=True)
        try:
            step()
        except FailedError as failed:
            missing[name] = str(failed)
            print(f"  cannot be had: {failed}", file=sys.stderr)
    (BASE / "missing.json").write_text(json.dumps(missing, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
