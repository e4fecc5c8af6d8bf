"""Rows over a socket: our native protocol and HTTP beside Redis and nginx."""

from __future__ import annotations

import csv
import http.client
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from sidebyside import servers
from sidebyside.measure import Contender, Figures, MissingError, Row, Running

OURS = "penstock"
SIZE = 128
FILL_BATCHES = 2_000_000
FILL_SINGLE = 200_000
READY = 3 << 30     # bytes of log made before a round, more than it sends
SETTLED_S = 2.5     # no segment made for so long: all are there
LUA = """
wrk.method = "POST"
wrk.body = string.rep("x", %d)
wrk.headers["Content-Type"] = "application/octet-stream"
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("FIGURES %%d %%d %%f %%f %%f %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
"""


def rows(data: Path, workers: int) -> list[Row]:
    def native(*words: object, ready: int = 0) -> Contender:
        return Contender(OURS, lambda stack: _native(stack, _fresh(data), workers, words, ready))

    def xadd(policy: str, clients: int, depth: int) -> Contender:
        name = f"Redis XADD {policy}" + (f" P{depth}" if depth > 1 else "")
        return Contender(name, lambda stack: _xadd(stack, _fresh(data), policy, clients, depth))

    def receive(fill: int, *words: object) -> Contender:
        return Contender(OURS, lambda stack: _receive(stack, _fresh(data), workers, fill, words))

    def rpop(fill: int, clients: int, count: int, depth: int) -> Contender:
        return Contender(f"Redis RPOP {count} always (no confirmation)", lambda stack: _rpop(
            stack, _fresh(data), fill, clients, count, depth))

    return [
        Row("single-disk", "64 connections x 1 request, after fdatasync",
            [native("--connections", 64), xadd("always", 64, 1)],
            ">= 1.3 x Redis always, p99 <= 3 ms", of_best_peer=1.3, p99_us=3000),
        Row("single-kernel", "64 connections x 1 request, in the kernel",
            [native("--connections", 64, "--durability", "kernel"), xadd("everysec", 64, 1)],
            ">= Redis everysec", of_best_peer=1.0),
        Row("pipelined-disk", "8 connections x 64 single requests, after fdatasync",
            [native("--connections", 8, "--in-flight", 64), xadd("always", 8, 64)],
            ">= 1,500,000 /s", at_least=1.5e6),
        Row("pipelined-kernel", "the same in the kernel: the row above if syncs were free",
            [native("--connections", 8, "--in-flight", 64, "--durability", "kernel"),
             xadd("everysec", 8, 64)]),
        Row("batches-disk", "batches of 1000, after fdatasync",
            [native("--connections", 8, "--in-flight", 4, "--batch", 1000),
             xadd("everysec", 16, 100)],
            ">= 3,000,000 /s", at_least=3e6),
        # As in a server that runs for longer than it retains: no segment has to be made meanwhile.
        Row("pipelined-ready", "8 connections x 64 single requests, serve --ready 3 GiB",
            [native("--connections", 8, "--in-flight", 64, ready=READY), xadd("always", 8, 64)]),
        Row("batches-ready", "batches of 1000, serve --ready 3 GiB",
            [native("--connections", 8, "--in-flight", 4, "--batch", 1000, ready=READY),
             xadd("everysec", 16, 100)]),
        Row("receive-32", "receive + confirm, batches of 32",
            [receive(FILL_BATCHES, "--connections", 8, "--in-flight", 4, "--batch", 32),
             rpop(FILL_BATCHES, 8, 32, 4)],
            ">= 1,000,000 /s", at_least=1e6),
        Row("receive-1", "receive + confirm one at a time, 64 connections",
            [receive(FILL_SINGLE, "--connections", 64), rpop(FILL_SINGLE, 64, 1, 1)],
            ">= 70,000 pairs/s", at_least=7e4),
        # What a consumer does that asks for the next message before its confirmation is answered.
        Row("receive-1-ahead", "the same, each connection up to 4 messages ahead",
            [receive(FILL_SINGLE, "--connections", 64, "--in-flight", 4),
             rpop(FILL_SINGLE, 64, 1, 4)]),
        Row("http-send", "HTTP/1.1 send, wrk, 64 connections, after fdatasync",
            [Contender(OURS, lambda stack: _http(stack, _fresh(data), workers)),
             Contender("nginx return 200", lambda stack: _nginx(stack, _fresh(data)))],
            ">= 100,000 /s and 0.55 of nginx", at_least=1e5, of_best_peer=0.55),
        Row("client-send", "asyncio client, 1000 sends in flight, after fdatasync",
            [Contender(OURS, lambda stack: _client(stack, _fresh(data), workers, "send"))],
            ">= 60,000 /s", at_least=6e4),
        Row("client-send-many", "asyncio client, send_many of 1000, after fdatasync",
            [Contender(OURS, lambda stack: _client(stack, _fresh(data), workers, "send_many"))],
            ">= 1,000,000 /s", at_least=1e6),
    ]


def bench(*words: object) -> Figures:
    """The figures of a run of our own load generator, in a process of its own."""
    command = [sys.executable, "-m", "penstock.server.bench", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=servers.environment(),
                          check=False)
    if not done.stdout.startswith("{"):
        raise RuntimeError(done.stderr.strip()[-300:] or f"exit status {done.returncode}")
    figures: Figures = json.loads(done.stdout)
    return figures


_numbers = itertools.count(1)


def _fresh(data: Path) -> Path:
    """A directory that no contender has used."""
    path = data / f"{next(_numbers):03}" / "data"
    path.mkdir(parents=True)
    return path


def _native(stack: ExitStack, data: Path, workers: int, words: tuple[object, ...],
            ready: int = 0) -> Running:
    server = servers.penstock(stack, data, workers, *(("--ready", str(ready)) if ready else ()))
    return Running(
        lambda seconds: bench("send", "--tcp", server.tcp, "--size", SIZE,
                              "--seconds", seconds, *words),
        server.process.pid, (lambda: _settled(data / "log")) if ready else None)


def _settled(log: Path) -> None:
    """Wait until no more segments are made ready."""
    count, since = 0, time.monotonic()
    while time.monotonic() - since < SETTLED_S:
        time.sleep(0.1)
        now = len(list(log.iterdir()))
        if now != count:
            count, since = now, time.monotonic()


def _receive(stack: ExitStack, data: Path, workers: int, fill: int,
             words: tuple[object, ...]) -> Running:
    server = servers.penstock(stack, data, workers)

    def refill() -> None:
        bench("send", "--tcp", server.tcp, "--size", SIZE, "--connections", 2, "--in-flight", 4,
              "--batch", 1000, "--durability", "kernel", "--count", fill)

    def measure(seconds: float) -> Figures:
        return bench("receive", "--tcp", server.tcp, "--size", SIZE, "--seconds", seconds, *words)

    return Running(measure, server.process.pid, refill)


def _xadd(stack: ExitStack, data: Path, policy: str, clients: int, depth: int) -> Running:
    process, port = servers.redis(stack, data, policy)
    words = ("XADD", "s", "*", "m", "x" * SIZE)
    measure = redis_benchmark(port, clients, depth, 1, words)
    return Running(measure, process.pid, lambda: _redis_do(port, b"DEL s\r\n"))


def _rpop(stack: ExitStack, data: Path, fill: int, clients: int, count: int,
          depth: int) -> Running:
    process, port = servers.redis(stack, data, "always")

    def refill() -> None:
        body = b"$%d\r\n%s\r\n" % (SIZE, b"x" * SIZE)
        push = b"*1002\r\n$5\r\nLPUSH\r\n$1\r\nq\r\n" + body * 1000
        _redis_do(port, b"DEL q\r\n")
        for _ in range(-(-fill // 1000)):
            _redis_do(port, push)

    words = ("RPOP", "q", str(count)) if count > 1 else ("RPOP", "q")
    return Running(redis_benchmark(port, clients, depth, count, words, fill // count),
                   process.pid, refill)


def redis_benchmark(port: int, clients: int, depth: int, count: int, words: tuple[str, ...],
                     fixed: int = 0) -> Callable[[float], Figures]:
    found = {"rate": 0.0}

    def once(requests: int) -> Figures:
        command = ["redis-benchmark", "-p", str(port), "-c", str(clients), "-P", str(depth),
                   "-n", str(requests), "--precision", "3", "--csv", *words]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        told = list(csv.DictReader(text.splitlines()))[-1]
        return {"rate": float(told["rps"]) * count, "p50_us": float(told["p50_latency_ms"]) * 1e3,
                "p99_us": float(told["p99_latency_ms"]) * 1e3, "messages": requests * count}

    def measure(seconds: float) -> Figures:
        if fixed:
            return once(fixed)
        # redis-benchmark counts requests, not seconds; a short run tells how many are needed.
        extra = 0.0
        if not found["rate"]:
            extra = 20000.0
            found["rate"] = once(20000)["rate"]
        figures = once(max(1000, int(found["rate"] * seconds)))
        figures["acknowledged"] = figures["messages"] + extra
        return figures

    return measure


def _redis_do(port: int, request: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(request)
        if not connection.recv(65536).startswith((b"+", b":")):
            raise RuntimeError("Redis refused")


def _http(stack: ExitStack, data: Path, workers: int) -> Running:
    if not shutil.which("wrk"):
        raise MissingError("wrk is not installed")
    server = servers.penstock(stack, data, workers)
    connection = http.client.HTTPConnection(server.http, timeout=10)
    connection.request("PUT", "/v1/queues/bench")
    status = connection.getresponse().status
    connection.close()
    if status >= 300:
        raise MissingError(f"PUT /v1/queues/bench was answered with {status}")
    return Running(_wrk(f"http://{server.http}/v1/queues/bench/messages", data.parent),
                   server.process.pid)


def _nginx(stack: ExitStack, data: Path) -> Running:
    if not shutil.which("wrk"):
        raise MissingError("wrk is not installed")
    process, port = servers.nginx(stack, data)
    return Running(_wrk(f"http://127.0.0.1:{port}/v1/queues/bench/messages", data.parent), None)


def _wrk(url: str, folder: Path) -> Callable[[float], Figures]:
    script = folder / "post.lua"
    script.write_text(LUA % SIZE)

    def measure(seconds: float) -> Figures:
        whole = max(1, round(seconds))
        text = subprocess.run(
            ["wrk", "-t1", "-c64", f"-d{whole}s", "--latency", "-s", os.fspath(script), url],
            capture_output=True, text=True, check=True).stdout
        told = re.search(r"FIGURES (\d+) (\d+) ([\d.]+) ([\d.]+) ([\d.]+) (\d+)", text)
        if told is None:
            raise RuntimeError(text[-200:])
        requests, micros, p50, p99, p999, errors = map(float, told.groups())
        return {"rate": requests / micros * 1e6, "p50_us": p50, "p99_us": p99, "p999_us": p999,
                "errors": errors, "messages": requests}

    return measure


def _client(stack: ExitStack, data: Path, workers: int, work: str) -> Running:
    server = servers.penstock(stack, data, workers)
    program = Path(__file__).with_name("client_load.py")

    def measure(seconds: float) -> Figures:
        done = subprocess.run(
            [sys.executable, os.fspath(program), server.tcp, work, str(seconds), str(SIZE)],
            capture_output=True, text=True, env=servers.environment(), check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-300:])
        figures: Figures = json.loads(done.stdout)
        return figures

    return Running(measure, server.process.pid)
