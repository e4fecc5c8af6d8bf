"""Peers are started, watched and stopped whole, and what cannot be had is named."""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import slow_disk  # noqa: E402
from peers import embedded, install, kept, processes, run, servers, works  # noqa: E402

# A server with a child that would outlive it.
SERVER = """
import socket, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    listener.accept()[0].close()
"""


def test_a_server_is_stopped_with_its_children(tmp_path):
    port = processes.free_port()
    with ExitStack() as stack:
        server = processes.start(stack, tmp_path, [sys.executable, "-c", SERVER, str(port)], port)
        assert len(processes.members(server.group)) == 2
        assert processes.cpu_seconds(server.group) > 0
        resident, private = processes.memory_bytes(server.group)
        assert resident > private > 0
    assert processes.members(server.group) == []


def test_a_program_that_is_not_there_is_named(tmp_path):
    with ExitStack() as stack, pytest.raises(processes.MissingError, match="no-such-queue"):
        processes.start(stack, tmp_path, ["no-such-queue"], 1)


@pytest.mark.parametrize("peer", [peer for peer in servers.PEERS if peer.name != "penstock"],
                         ids=lambda peer: f"{peer.name} {peer.setting}")
def test_a_peer_that_cannot_be_had_is_named(peer, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(servers, "BIN", tmp_path)
    monkeypatch.setattr(servers, "RABBIT_SCRIPT", str(tmp_path / "rabbitmq-server"))
    with ExitStack() as stack, pytest.raises(processes.MissingError, match="is not installed"):
        peer.start(stack, tmp_path, 0.0)


def test_a_library_whose_program_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    args = argparse.Namespace(data=tmp_path, seconds=0.1, delay_ms=0.0)
    with pytest.raises(RuntimeError, match="java is not installed"):
        embedded.once(args, "chronicle-queue", True, 1, 1)


def test_a_loader_that_is_not_there_is_a_failure_of_its_row(tmp_path):
    with pytest.raises(RuntimeError, match="there is no load"):
        run.loaded([str(tmp_path / "load"), "-kind", "redis"])


def test_a_server_that_ends_tells_its_last_line(tmp_path):
    words = [sys.executable, "-c", "print('the disk is full'); raise SystemExit(3)"]
    with ExitStack() as stack, pytest.raises(processes.MissingError, match="the disk is full"):
        processes.start(stack, tmp_path, words, processes.free_port())


def test_a_step_that_fails_leaves_the_others(monkeypatch, tmp_path, capsys):
    def fail():
        install.run([sys.executable, "-c", "raise SystemExit('the registry has no such thing')"])

    monkeypatch.setattr(install, "BASE", tmp_path)
    monkeypatch.setattr(install, "BIN", tmp_path / "bin")
    monkeypatch.setattr(install, "STEPS", {"one": fail, "two": lambda: None})
    assert install.main() == 0
    assert "· two" in capsys.readouterr().out
    assert "no such thing" in (tmp_path / "missing.json").read_text()


def test_each_peer_has_a_durable_setting_or_says_that_it_has_none():
    durable = {peer.name for peer in servers.PEERS if peer.durable}
    assert {peer.name for peer in servers.PEERS} - durable == {"elasticmq"}


@pytest.mark.parametrize("peer", servers.PEERS, ids=lambda peer: f"{peer.name} {peer.setting}")
def test_every_loader_is_told_the_same(peer):
    server = processes.Server("127.0.0.1:1", 1)
    words = works.command(peer, server, works.WORKS["W2"], 128, 3.0)
    assert {"64", "1", "128", "3.0"} <= set(words)


def test_a_request_has_no_more_messages_than_the_peer_takes():
    rocket = next(peer for peer in servers.PEERS if peer.name == "rocketmq")
    server = processes.Server("127.0.0.1:1", 1)
    words = works.command(rocket, server, works.WORKS["W1"], 128, 3.0)
    assert "256" in words and "1000" not in words


def test_what_a_loader_and_its_server_did_is_kept(tmp_path):
    told = '{"rate": 5.0, "messages": 10, "acknowledged": 10, "errors": 0}'
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE,
                               start_new_session=True)
    try:
        server = processes.Server("", process.pid)
        words = [sys.executable, "-c", f"print('noise'); print('{told}')"]
        figures = run.measured(words, server, tmp_path)
    finally:
        process.communicate(b"\n")
    assert figures["rate"] == 5.0 and figures["resident_bytes"] > 0
    assert 0 <= figures["others_share"] <= 1 and figures["server_cpu_per_million"] >= 0


def test_a_loader_that_says_nothing_is_a_failure(tmp_path):
    server = processes.Server("", 0)
    with pytest.raises(RuntimeError, match="no such topic"):
        run.measured([sys.executable, "-c", "raise SystemExit('no such topic')"], server, tmp_path)


FIGURES = {"rate": 5.0, "errors": 0}


def test_rounds_are_kept_one_by_one_and_gone_on_with(tmp_path):
    told = kept.Kept(tmp_path, "W4 fill", 128, 5.0)
    row = told.begin("redis", "always", durable=True, go_on=False)
    told.add(row, FIGURES)
    assert [path.name for path in tmp_path.iterdir()] == ["W4-fill-128-5ms.json"]
    again = kept.Kept(tmp_path, "W4 fill", 128, 5.0)
    row = again.begin("redis", "always", durable=True, go_on=True)
    again.add(row, {**FIGURES, "rate": 7.0})
    row = kept.Kept(tmp_path, "W4 fill", 128, 5.0).row("redis", "always")
    assert row is not None and kept.median(row, "rate") == 6.0
    anew = kept.Kept(tmp_path, "W4 fill", 128, 5.0).begin("redis", "always", True, go_on=False)
    assert anew["rounds"] == []


def test_our_own_rounds_of_another_commit_are_not_gone_on_with(tmp_path, monkeypatch):
    for peer in ("penstock", "redis"):
        told = kept.Kept(tmp_path, "W2", 128, 0)
        told.add(told.begin(peer, "disk", durable=True, go_on=False), FIGURES)
    monkeypatch.setattr(kept, "commit", lambda: "another")
    told = kept.Kept(tmp_path, "W2", 128, 0)
    assert told.begin("penstock", "disk", durable=True, go_on=True)["rounds"] == []
    assert len(told.begin("redis", "disk", durable=True, go_on=True)["rounds"]) == 1


def test_a_disturbed_round_gives_way_to_a_quiet_one(tmp_path):
    told = kept.Kept(tmp_path, "W2", 128, 0)
    row = told.begin("redis", "always", durable=True, go_on=False)
    for others in (0.1, 0.8):
        told.add(row, {**FIGURES, "others_share": others}, 2)
    assert kept.quiet(row, 0.25) == 1
    told.add(row, {**FIGURES, "others_share": 0.2}, 2)
    assert [one["others_share"] for one in row["rounds"]] == [0.1, 0.2]


def test_a_round_during_which_everything_stood_still_is_no_round(monkeypatch):
    times = iter([0.0, 0.1, 100.0])
    monkeypatch.setattr(run.time, "monotonic", lambda: next(times, 100.1))
    with pytest.raises(run.StoodStillError, match="99.8 s"):
        run.loaded([sys.executable, "-c", "import time; time.sleep(0.5); print('{}')"])


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")
def test_a_slower_disk_delays_every_sync_also_one_that_no_library_makes(tmp_path):
    work = """
import ctypes, mmap, os, platform, time
fd = os.open("file", os.O_RDWR | os.O_CREAT)
os.pwrite(fd, bytes(4096), 0)
page = mmap.mmap(fd, 4096)
number = {"x86_64": 75, "aarch64": 83}[platform.machine()]
direct = lambda: ctypes.CDLL(None).syscall(number, fd)
for sync in (lambda: os.fdatasync(fd), lambda: os.fsync(fd), page.flush, direct):
    began = time.monotonic()
    sync()
    print(time.monotonic() - began)
"""
    before = slow_disk.words(50)
    done = subprocess.run([*before, sys.executable, "-c", work], capture_output=True, text=True,
                          cwd=tmp_path, check=False)
    if done.returncode == 71:
        pytest.skip(done.stderr)
    taken = [float(text) for text in done.stdout.split()]
    assert len(taken) == 4 and min(taken) >= 0.05


def test_a_command_that_cannot_be_delayed_is_named(tmp_path):
    with ExitStack() as stack, pytest.raises(processes.MissingError, match="no-such-queue"):
        processes.start(stack, tmp_path, ["no-such-queue"], 1, 1.0)


@pytest.mark.skipif(not (install.BIN / "load").exists(), reason="make peers was not run here")
def test_a_request_that_takes_longer_than_what_is_measured_is_not_nothing():
    """Ten messages each 0.8 s, of which 0.2 s are measured: 12.5 a second, where it was 0."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection = listener.accept()[0]
            with connection:
                while got := connection.recv(65536):
                    while got.count(b"put ") < 10 or not got.endswith(b"\r\n"):
                        got += connection.recv(65536)
                    time.sleep(0.8)
                    connection.sendall(b"INSERTED 1\r\n" * 10)

        thread = threading.Thread(target=serve)
        thread.start()
        words = {"kind": "beanstalkd", "address": f"127.0.0.1:{listener.getsockname()[1]}",
                 "batch": 10, "seconds": 0.2, "warm-up": 0.1}
        told = run.loaded([str(install.BIN / "load"),
                           *(text for name, value in words.items()
                             for text in (f"-{name}", str(value)))])
        thread.join()
    assert 0 < json.loads(told)["rate"] < 13
