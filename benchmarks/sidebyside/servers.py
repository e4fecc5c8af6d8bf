"""Starting and stopping the servers of a comparison, each in a directory of its own."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sidebyside.measure import MissingError

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
COMMAND = "import sys; from penstock.server.cli import main; sys.exit(main())"


@dataclass
class Penstock:
    process: subprocess.Popen[str]
    tcp: str
    http: str
    ready_s: float


def environment() -> dict[str, str]:
    """Ours, with the import names of a build in place if there is one."""
    names = os.fspath(ROOT / "build" / "names")
    path = os.pathsep.join(filter(None, (names, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def penstock(stack: ExitStack, data: Path, workers: int = 1, *words: str) -> Penstock:
    """Our server, ready; it is stopped with the stack."""
    command = [sys.executable, "-c", COMMAND, "serve", "--data", os.fspath(data),
               "--tcp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--workers", str(workers), *words]
    started = time.monotonic()
    errors = stack.enter_context(open(data.parent / "penstock.stderr", "w+"))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True,
                               env=environment())
    stack.callback(stop, process)
    assert process.stdout is not None
    while time.monotonic() - started < START_TIMEOUT_S:
        if select.select([process.stdout], [], [], 0.5)[0]:
            line = process.stdout.readline()
            if line.startswith("ready"):
                told = dict(word.split("=", 1) for word in line.split() if "=" in word)
                return Penstock(process, told["tcp"], told["http"], time.monotonic() - started)
            if not line:
                break
    errors.seek(0)
    last = errors.read().strip().splitlines()[-1:] or ["no line `ready`"]
    raise MissingError(f"penstock serve does not start: {last[0]}")


def redis(stack: ExitStack, data: Path, appendfsync: str) -> tuple[subprocess.Popen[bytes], int]:
    """A Redis whose append-only file is synced `always` or `everysec`."""
    for program in ("redis-server", "redis-benchmark"):
        if not shutil.which(program):
            raise MissingError(f"{program} is not installed")
    port = free_port()
    data.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", os.fspath(data),
         "--save", "", "--appendonly", "yes", "--appendfsync", appendfsync,
         "--auto-aof-rewrite-percentage", "0", "--maxclients", "20000", "--daemonize", "no"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(stop, process)
    wait_for_port(port)
    return process, port


def nginx(stack: ExitStack, data: Path) -> tuple[subprocess.Popen[bytes], int]:
    """An nginx of one worker that answers everything with 200 and no body."""
    if not shutil.which("nginx"):
        raise MissingError("nginx is not installed")
    port = free_port()
    data.mkdir(parents=True, exist_ok=True)
    (data / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; pid {data}/pid; error_log {data}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_temp_path {data}/body;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200; }} }}
}}
""")
    process = subprocess.Popen(["nginx", "-p", os.fspath(data), "-c", "nginx.conf"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(stop, process)
    wait_for_port(port)
    return process, port


def stop(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Ask a server to end, and make it end if it does not."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_port(port: int) -> None:
    limit = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < limit:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise MissingError(f"nothing listens on port {port}")
