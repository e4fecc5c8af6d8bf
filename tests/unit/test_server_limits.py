"""What the server refuses, cuts off and survives: tables, options, limits and timeouts."""

import asyncio
import re
import resource
import socket
import statistics
import struct
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.engine import errors as engine
from penstock.server.broker.errors import BrokerError, Kind, refusal
from penstock.server.config import ServeOptions, format_address, parse_address
from penstock.server.protocols.http import door, problem
from penstock.server.protocols.native import statuses

sys.path.insert(0, str(Path(__file__).parent))
from server_inside import HELLO, Doors, ended, open_still, play, reply
from server_process import Server, Wire, frame, messages_of, receive_payload, send_payload

WIRE = Path(__file__).parents[2] / "docs" / "wire.md"


def descendants(cls: type[engine.EngineError]) -> list[type[engine.EngineError]]:
    return [cls, *(one for sub in cls.__subclasses__() for one in descendants(sub))]


def test_every_kind_has_the_documented_wire_status_and_an_http_status() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|[^|]*\|$", WIRE.read_text(), re.MULTILINE)
    told = {name.replace("UNKNOWN_VERB", "UNKNOWN"): int(number) for number, name in rows}
    table = {kind.name: status for kind, status in statuses.STATUSES.items()}
    assert set(statuses.STATUSES) == set(problem.STATUSES) == set(Kind)
    assert table == {name: told[name] for name in table}
    assert len(set(table.values())) == len(table)
    for kind in Kind:
        error = BrokerError(kind, "why")
        status, payload = statuses.refused(error)
        assert status == table[kind.name]
        assert payload == struct.pack("<I", error.retry_after_ms) + b"why"
        code, head, body = problem.problem(error)
        assert code >= 400 and code in problem.REASONS
        assert (b"Retry-After" in head) == (error.retry_after_ms > 0)
        assert f"urn:penstock:problem:{kind.value}".encode() in body


@pytest.mark.parametrize("cls", descendants(engine.EngineError))
def test_every_engine_error_has_a_kind_of_its_own(cls: type[engine.EngineError]) -> None:
    found = refusal(cls("the sentence"))
    assert (found.kind is Kind.INTERNAL) == (cls is engine.EngineError)
    assert found.text == "the sentence"
    assert refusal(cls()).text == found.kind.value


def test_a_verdict_means_the_same_on_both_doors() -> None:
    for verdict, kind in door.VERDICTS.items():
        assert statuses.STATUSES[kind] == verdict


ADDRESSES = [
    ("127.0.0.1:7711", ("127.0.0.1", 7711)),
    (":0", ("127.0.0.1", 0)),
    ("[::1]:65535", ("::1", 65535)),
    ("localhost:1", ("localhost", 1)),
]


@pytest.mark.parametrize(("text", "expected"), ADDRESSES)
def test_an_address_is_read_and_written_alike(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected
    assert parse_address(format_address(*expected)) == expected


NO_ADDRESSES = ["", "7711", "host:", "host:-1", "host:65536", "::1:80", "h:1x", "h:\u0663"]


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_address(text)


WRONG: list[dict[str, Any]] = [
    {"workers": 0}, {"workers": 257}, {"connections": 0}, {"connections": 1 << 21},
    {"durability": "memory"}, {"tcp": "", "http": ""},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_options_that_cannot_be_served_are_refused(wrong: dict[str, Any]) -> None:
    ServeOptions(data="d", tcp="")
    with pytest.raises(ValueError, match="workers|connections|durability|address"):
        ServeOptions(data="d", **wrong)


def test_connections_over_the_limit_are_cut_and_the_others_served(tmp_path: Path) -> None:
    async def scene(doors: Doors) -> None:
        first, writer = await doors.native()
        await doors.native()
        await doors.connect(doors.http)
        for port in (doors.tcp, doors.http):
            refused, _ = await doors.connect(port)
            assert await ended(refused)
        assert (doors.hub.connections, doors.hub.refused) == (3, 2)
        writer.write(frame(13, 5, b"still"))
        assert await reply(first) == (0x8D, 0, 5, b"still")
        writer.close()
        while doors.hub.connections == 3:
            await asyncio.sleep(0.01)
        await doors.native()

    play(tmp_path, scene, connections=3)


def test_who_says_nothing_is_cut_and_who_waits_is_not(tmp_path: Path) -> None:
    async def scene(doors: Doors) -> None:
        queue = doors.store.queue("q").id
        silent, _ = await doors.native(hello=False)
        half, half_writer = await doors.native(hello=False)
        half_writer.write(HELLO[:9])
        idle, _ = await doors.native()
        waiting, writer = await doors.native()
        writer.write(frame(5, 1, receive_payload(queue, wait_ms=5000)))
        bare, _ = await doors.connect(doors.http)
        slow, slow_writer = await doors.connect(doors.http)
        slow_writer.write(b"GET /livez HTTP/1.1\r\nHo")
        await asyncio.sleep(0.05)
        doors.hub.sweep()
        for reader in (silent, half, idle, waiting, bare, slow):
            assert await open_still(reader)
        await asyncio.sleep(0.25)
        doors.hub.sweep()
        for reader in (silent, half, idle, bare, slow):
            assert await ended(reader)
        assert await open_still(waiting)
        assert doors.hub.dropped == 5
        doors.store.queue("q").append(b"late")
        assert messages_of((await reply(waiting))[3])[0][1] == b"late"

    play(tmp_path, scene, handshake_s=0.25, idle_s=0.25, http_idle_s=0.25, request_s=0.25)


def test_who_does_not_read_its_replies_is_cut(tmp_path: Path) -> None:
    async def scene(doors: Doors) -> None:
        loop = asyncio.get_running_loop()
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        await loop.sock_connect(deaf, ("127.0.0.1", doors.tcp))
        ping = HELLO + frame(13, 1, bytes(4 << 20)) * 4
        sending = asyncio.ensure_future(loop.sock_sendall(deaf, ping))
        other, writer = await doors.native()
        await asyncio.sleep(0.5)
        doors.hub.sweep()
        while doors.hub.connections > 1:
            await asyncio.sleep(0.01)
        assert doors.hub.dropped == 1
        await asyncio.wait([sending], timeout=1)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        deaf.close()
        writer.write(frame(13, 5, b"fine"))
        assert await reply(other) == (0x8D, 0, 5, b"fine")

    play(tmp_path, scene, stall_s=0.25, write_bytes=65536)


def test_what_came_between_a_look_and_the_wait_is_noticed_at_once(tmp_path: Path) -> None:
    async def scene(doors: Doors) -> None:
        queue = doors.store.queue("q")
        group = queue.group()
        seen = doors.hub.arrivals
        assert not len(group.receive(1))
        queue.append(b"between", durability="disk")
        assert doors.hub.wait(queue.id, group.id, 60_000, seen).done()
        # Nothing is given up to wait a second time, and what is new still comes.
        waiting = doors.hub.wait(queue.id, group.id, 60_000, doors.hub.arrivals)
        queue.append(b"after", durability="disk")
        await waiting

    play(tmp_path, scene)


@pytest.mark.parametrize("in_flight", [1, 2, 8, 16384])
def test_back_pressure_keeps_the_order_and_loses_nothing(tmp_path: Path, in_flight: int) -> None:
    # Sixteen times what a round of the lane holds, and far more than eight requests, in one go.
    count, size = 512, 65536

    async def scene(doors: Doors) -> None:
        queue = doors.store.queue("q")
        reader, writer = await doors.native()
        for tag in range(count):
            body = struct.pack("<I", tag) * (size // 4)
            writer.write(frame(3, tag, send_payload(queue.id, body, durability=0)))
        # The replies may come in another order; what they say may not be of another.
        told = {}
        for _ in range(count):
            verb, status, tag, payload = await reply(reader)
            assert (verb, status) == (0x83, 0)
            (told[tag],) = struct.unpack_from("<Q", payload)
        assert told == {tag: tag for tag in range(count)}
        assert doors.hub.in_flight == 0
        seen = 0
        while seen < count:
            for body in queue.read(offset=seen).tolist():
                assert len(body) == size and body[:4] == struct.pack("<I", seen)
                seen += 1

    play(tmp_path, scene, segment_size=4 << 20, in_flight=in_flight)


def test_ten_thousand_announcements_of_two_gibibytes_cost_little(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 500)
    try:
        with Server(tmp_path) as server:
            before = server.rss_kib()
            began = time.monotonic()
            name = ("127.0.0.1", server.tcp)
            sockets = [socket.create_connection(name, 10) for _ in range(count)]
            peak = 0
            for number, one in enumerate(sockets):
                one.sendall(HELLO + struct.pack("<IBBHII", 1 << 31, 3, 0, 0, 1, 0))
                if number % 1000 == 999:
                    peak = max(peak, server.rss_kib())
            for one in sockets:
                data = b""
                while more := one.recv(4096):
                    data += more
                # HELLO's reply, then one refusal, then the end.
                assert data[46:48] == struct.pack("<H", 5)
                one.close()
            peak = max(peak, server.rss_kib())
            took = time.monotonic() - began
            with Wire(server.tcp) as wire:
                assert wire.call(13, b"fine") == (0, b"fine")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert peak - before < 100 << 10
    assert took < 15


def holder(pids: list[int], wire: Wire, port: int) -> int:
    """Which of the processes has the other end of the connection."""
    own = f":{port:04X} 0100007F:{wire.socket.getsockname()[1]:04X} "
    for line in Path("/proc/net/tcp").read_text().splitlines():
        if own in line:
            link = f"socket:[{line.split()[9]}]"
            for pid in pids:
                for one in Path(f"/proc/{pid}/fd").iterdir():
                    if one.is_symlink() and str(one.readlink()) == link:
                        return pid
    raise AssertionError("nobody has it")


def test_a_send_through_one_worker_wakes_who_waits_at_another(tmp_path: Path) -> None:
    with Server(tmp_path, workers=2) as server:
        parent = server.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        pids = [int(pid) for pid in children.split()]
        met: dict[int, Wire] = {}
        wires: list[Wire] = []
        while len(met) < 2 and len(wires) < 64:
            wires.append(Wire(server.tcp))
            met.setdefault(holder(pids, wires[-1], server.tcp), wires[-1])
        assert sorted(met) == sorted(pids)
        took = []
        for sending, waiting in ((met[pids[0]], met[pids[1]]), (met[pids[1]], met[pids[0]])):
            queue = sending.open("shared")
            for _ in range(5):
                waiting.send(5, receive_payload(queue, wait_ms=5000))
                time.sleep(0.02)
                began = time.monotonic()
                assert sending.call(3, send_payload(queue, b"m", durability=0))[0] == 0
                [(receipt, body)] = messages_of(waiting.reply()[3])
                took.append(time.monotonic() - began)
                assert body == b"m"
                assert waiting.call(6, struct.pack("<I", 1) + receipt)[0] == 0
        for wire in wires:
            wire.close()
        assert server.stop() == 0
    assert statistics.median(took) < 0.15
