"""Several workers: one that dies is started again, and whoever is asked counts for all."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from penstock import Client, PenstockError
from penstock.server.metrics.board import Board
from penstock.server.metrics.exposition import Metric, expose
from penstock.server.supervisor import BACKOFF_LIMIT_S, BACKOFF_S, SETTLED_S, Supervisor

sys.path.insert(0, str(Path(__file__).parent))
from server_process import NAMES, PROGRAM, Server
from test_http_door import OCTETS, ask


def workers(server: Server) -> set[int]:
    """The process ids of the living workers."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return {int(word) for word in children.read_text().split()}


def eventually(true: Callable[[], bool], within_s: float = 15.0) -> None:
    """Waits for another process, whose clock cannot be driven."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill_and_wait(server: Server, worker: int) -> None:
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: len(workers(server)) == 2 and worker not in workers(server))


def metric(server: Server, name: str) -> float:
    text = ask(server, "GET", "/metrics")[1].decode()
    found = re.search(rf"^penstock_{name} ([-0-9.e]+)$", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])


def test_a_worker_that_dies_is_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    with Server(tmp_path, workers=2) as server:
        ask(server, "PUT", "/v1/queues/red")
        for _ in range(3):
            assert ask(server, "POST", "/v1/queues/red/messages", b"m", **OCTETS)[0] == 201
        before = workers(server)
        assert len(before) == 2
        for killed in sorted(before):
            kill_and_wait(server, killed)
        assert not before & workers(server)
        eventually(lambda: sent(server))
        [row] = ask(server, "GET", "/v1/lag")[1]["groups"]
        assert row["lag"] >= 4
        assert metric(server, "worker_restarts_total") == 2
        assert server.stop() == 0


def sent(server: Server) -> bool:
    """Whether a client gets its message stored. The port is served again when the worker is up."""
    try:
        with Client(f"127.0.0.1:{server.tcp}", connect_for=0.2) as client:
            client.queue("red").send(b"after")
    except PenstockError:
        return False
    return True


def test_the_metrics_are_those_of_all_workers(tmp_path: Path) -> None:
    with Server(tmp_path, workers=2) as server:
        clients = [Client(f"127.0.0.1:{server.tcp}") for _ in range(8)]
        for client in clients:
            client.queue("red").send(b"m")
        eventually(lambda: metric(server, "worker_sends_total") == 8)
        # Each look opens one more connection, and a worker tells of its own at most 0.25 s later.
        eventually(lambda: metric(server, "worker_connections") in (8, 9))
        victim = min(workers(server))
        kill_and_wait(server, victim)
        # What the dead worker counted is not forgotten.
        eventually(lambda: metric(server, "worker_sends_total") == 8)
        assert metric(server, "workers") == 2
        assert metric(server, r'group_lag\{queue="red",group=""\}') == 8
        assert metric(server, "groups_left_out") == 0
        for client in clients:
            client.close()


def test_a_server_that_cannot_start_its_workers_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("this is no store")
    environment = {**os.environ, "PYTHONPATH": os.fspath(NAMES)}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, os.fspath(tmp_path), "2", "127.0.0.1:0", "127.0.0.1:0", "",
         "{}"],
        capture_output=True, text=True, env=environment, timeout=30, check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "cannot open" in ended.stderr


def test_a_worker_that_dies_early_waits_longer_each_time() -> None:
    supervisor = Supervisor(1, lambda index, ready: 0, lambda index, again: None)
    waits = []
    for _ in range(10):
        supervisor.started[0] = time.monotonic()
        supervisor.plan(0, 4711, -9)
        waits.append(round(supervisor.due[0] - supervisor.started[0], 2))
    assert waits[:3] == [BACKOFF_S, 2 * BACKOFF_S, 4 * BACKOFF_S]
    assert waits == sorted(waits) and waits[-1] == BACKOFF_LIMIT_S
    supervisor.started[0] = time.monotonic() - SETTLED_S - 1
    supervisor.plan(0, 4711, 1)
    assert supervisor.due[0] - time.monotonic() <= BACKOFF_S


def test_a_board_adds_up_and_counters_never_fall() -> None:
    board, counters = Board(2), (True, False)
    for index in range(2):
        board.begin(index, counters)
        board.put((10, 3))
    assert board.sums(2) == [20, 6]
    board.end(1, counters)
    assert board.sums(2) == [20, 3]
    board.begin(1, counters)
    board.put((1, 1))
    assert board.sums(2) == [21, 4]
    board.restarted()
    assert board.restarts == 1 and board.sums(2) == [21, 4]


def test_series_of_one_name_stand_together_and_labels_cannot_break_out() -> None:
    evil = 'a"} 1\nfake 2\\'
    text = expose([
        Metric("m", "gauge", "A number.", 1.5, (("queue", "q"), ("group", evil))),
        Metric("m", "gauge", "A number.", 2, (("queue", "q"), ("group", ""))),
    ]).decode()
    assert text == (
        "# HELP penstock_m A number.\n# TYPE penstock_m gauge\n"
        'penstock_m{queue="q",group="a\\"} 1\\nfake 2\\\\"} 1.5\n'
        'penstock_m{queue="q",group=""} 2\n'
    )
