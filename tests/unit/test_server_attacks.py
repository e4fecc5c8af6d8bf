"""Peers that want to exhaust the server: they do not read, do not finish, or are long gone."""

import asyncio
import json
import resource
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.server.bridge import Bridge

sys.path.insert(0, str(Path(__file__).parent))
from server_inside import HELLO, Doors, ended, play, reply
from server_process import Server, Wire, frame, receive_payload, send_payload

MEBIBYTE = 1 << 20


def request(method: str, path: str, body: bytes = b"", close: bool = False) -> bytes:
    said = "Connection: close\r\n" if close else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{said}\r\n"
    return head.encode() + body


def long_poll(queue: str = "q", wait_ms: int = 600_000) -> bytes:
    return request("POST", f"/v1/queues/{queue}/receive", b'{"wait_ms": %d}' % wait_ms)


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the next reply."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head[9:12]), await reader.readexactly(size)


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.01)


async def deaf(port: int) -> socket.socket:
    """A connection of somebody who reads nothing unless it is asked to."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
    return made


def test_who_does_not_read_large_answers_is_asked_no_more_of(tmp_path: Path) -> None:
    asked, size = 30, MEBIBYTE

    async def scene(doors: Doors) -> None:
        doors.store.queue("q").append(b"x" * size, durability="disk")
        loop = asyncio.get_running_loop()
        peer = await deaf(doors.http)
        await loop.sock_sendall(peer, request("GET", "/v1/queues/q/peek") * asked)
        await until(lambda: doors.hub.sent_bytes > size)
        sent = 0
        while sent != doors.hub.sent_bytes:
            sent = doors.hub.sent_bytes
            await asyncio.sleep(0.1)
        assert sent < 10 * size
        # Once it reads, everything comes, in full.
        got = 0
        ends = b""
        while got < asked * size:
            data = await loop.sock_recv(peer, MEBIBYTE)
            assert data
            got += len(data)
            ends = (ends + data)[-64:]
        while not ends.endswith(b"}]}"):
            data = await loop.sock_recv(peer, MEBIBYTE)
            assert data
            ends = (ends + data)[-64:]
        peer.close()

    play(tmp_path, scene, write_bytes=65536)


def test_readers_that_wait_on_a_deaf_connection_cost_one_answer(tmp_path: Path) -> None:
    async def scene(doors: Doors) -> None:
        queue = doors.store.queue("q")
        loop = asyncio.get_running_loop()
        peer = await deaf(doors.tcp)
        hello = frame(1, 0, struct.pack("<4sHHQ", b"PNST", 1, 0, 0))
        wait = struct.pack("<IIQIIII", queue.id, 0, 0, 1, 1 << 22, 60_000, 0)
        await loop.sock_sendall(peer, hello + frame(10, 1, wait) * 64)
        await until(lambda: doors.hub.parked == 64)
        before = doors.hub.delivered
        queue.append(b"x" * MEBIBYTE, durability="disk")
        await until(lambda: doors.hub.delivered > before)
        await asyncio.sleep(0.1)
        assert doors.hub.delivered - before < 4 and doors.hub.parked > 60
        # The others have it as soon as it reads.
        got = 0
        while got < 64 * MEBIBYTE:
            data = await loop.sock_recv(peer, MEBIBYTE)
            assert data
            got += len(data)
        assert doors.hub.parked == 0
        peer.close()

    play(tmp_path, scene, write_bytes=65536)


LEAVINGS: dict[str, tuple[bytes, bool]] = {
    "closed": (long_poll(), False),
    "more asked, closed": (long_poll() * 3, True),
}


@pytest.mark.parametrize("how", LEAVINGS)
def test_a_receiver_that_is_gone_holds_no_place_and_takes_nothing(
    how: str, tmp_path: Path
) -> None:
    asked, swept = LEAVINGS[how]

    async def scene(doors: Doors) -> None:
        queue = doors.store.queue("q")
        for _ in range(20):
            _, writer = await doors.connect(doors.http)
            writer.write(asked)
        await until(lambda: doors.hub.parked == 20)
        for writer in doors.kept:
            writer.close()
        if swept:
            await asyncio.sleep(0.05)
            doors.hub.sweep()
        await until(lambda: doors.hub.connections == 0)
        assert doors.hub.parked == 0
        await until(lambda: doors.hub.in_calls == 0)
        queue.append(b"for the living", durability="disk")
        reader, writer = await doors.connect(doors.http)
        writer.write(long_poll(wait_ms=0))
        status, body = await answer(reader)
        (message,) = json.loads(body)["messages"]
        assert status == 200 and message["attempts"] == 1

    play(tmp_path, scene)


def test_who_only_says_no_more_is_answered_all_the_same(tmp_path: Path) -> None:
    async def scene(doors: Doors) -> None:
        doors.store.queue("q")
        reader, writer = await doors.connect(doors.http)
        writer.write(request("GET", "/livez") + request("GET", "/v1/queues") + long_poll())
        writer.write_eof()
        assert await answer(reader) == (200, b"alive\n")
        assert (await answer(reader))[0] == 200
        assert await answer(reader) == (200, b'{"messages":[]}')
        assert await ended(reader)

    play(tmp_path, scene)


def test_one_arrival_wakes_few_of_many_and_many_wake_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, calls = 200, 0
    real = Bridge.call

    def counted(self: Bridge, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(self, *args, **kwargs)

    async def scene(doors: Doors) -> None:
        nonlocal calls
        queue = doors.store.queue("q")
        readers = []
        for _ in range(count):
            reader, writer = await doors.connect(doors.http)
            writer.write(long_poll())
            readers.append(asyncio.ensure_future(answer(reader)))
        await until(lambda: doors.hub.parked == count)
        calls = 0
        queue.append(b"one", durability="disk")
        await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
        # The net that catches what other processes give back looks now and then as well.
        assert calls < count / 4
        queue.append_many([b"%d" % at for at in range(count - 1)], durability="disk")
        got = [json.loads(body)["messages"] for _, body in await asyncio.gather(*readers)]
        assert sorted(one["offset"] for (one,) in got) == list(range(count))

    monkeypatch.setattr(Bridge, "call", counted)
    play(tmp_path, scene)


def test_traffic_elsewhere_does_not_keep_a_receiver_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    real = Bridge.call

    def busy(self: Bridge, *args: Any, **kwargs: Any) -> Any:
        nonlocal looks
        looks += 1
        other.append(b"x", durability="kernel")
        return real(self, *args, **kwargs)

    async def scene(doors: Doors) -> None:
        nonlocal other
        other = doors.store.queue("other")
        doors.store.queue("q")
        reader, writer = await doors.connect(doors.http)
        monkeypatch.setattr(Bridge, "call", busy)
        writer.write(long_poll(wait_ms=300))
        assert (await answer(reader))[0] == 200
        assert looks < 40

    other: Any = None
    play(tmp_path, scene)


def test_a_name_of_digits_is_a_name(tmp_path: Path) -> None:
    async def scene(doors: Doors) -> None:
        reader, writer = await doors.connect(doors.http)
        for method in ("PUT", "GET", "DELETE"):
            writer.write(request(method, "/v1/queues/123"))
        assert [(await answer(reader))[0] for _ in range(2)] == [201, 200]
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")

    play(tmp_path, scene)


def test_a_receiver_of_a_queue_that_is_deleted_is_told(tmp_path: Path) -> None:
    async def scene(doors: Doors) -> None:
        queue = doors.store.queue("q")
        reader, writer = await doors.native()
        writer.write(frame(5, 7, receive_payload(queue.id, wait_ms=60_000)))
        web, web_writer = await doors.connect(doors.http)
        web_writer.write(long_poll())
        await until(lambda: doors.hub.parked == 2)
        doors.store.delete("q")
        verb, status, tag, _ = await reply(reader)
        assert (verb, status, tag) == (0x85, 3, 7)
        assert (await answer(web))[0] == 404

    play(tmp_path, scene)


HALVES: dict[str, bytes] = {
    "native frames": HELLO + struct.pack("<IBBHII", 1 << 20, 3, 0, 0, 1, 0) + bytes(400_000),
    "HTTP bodies": request("POST", "/v1/queues/q/messages", bytes(500_000))[:400_000],
    "pipelined HTTP": long_poll() + request("GET", "/livez", bytes(30)) * 1500,
}


@pytest.mark.parametrize("kind", HALVES)
def test_halves_of_many_requests_give_way_to_whole_ones(kind: str, tmp_path: Path) -> None:
    async def scene(doors: Doors) -> None:
        queue = doors.store.queue("q")
        port = doors.tcp if kind == "native frames" else doors.http
        most = 0
        for _ in range(40):
            _, writer = await doors.connect(port)
            writer.write(HALVES[kind])
            await asyncio.sleep(0)
        for _ in range(20):
            reader, writer = await doors.native()
            writer.write(frame(3, 7, send_payload(queue.id, bytes(1_000_000), durability=0)))
            assert (await reply(reader))[:3] == (0x83, 0, 7)
            most = max(most, doors.hub.kept)
        await until(lambda: doors.hub.kept <= 4 * MEBIBYTE)
        # One read of each that is open may come before those are dropped that go.
        assert most < 24 * MEBIBYTE and doors.hub.dropped >= 20
        for writer in doors.kept:
            writer.transport.abort()
        await until(lambda: doors.hub.connections == 0)
        assert doors.hub.kept == 0

    play(tmp_path, scene, kept_bytes=4 * MEBIBYTE)


def test_thousands_of_slow_peers_leave_the_honest_one_served(tmp_path: Path, soak: bool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000 if soak else 2_000, hard - 500)
    slow = [
        b"POST /v1/queues/q/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n",
        HELLO + struct.pack("<IBBHII", 4 << 20, 3, 0, 0, 1, 0),
    ]
    try:
        with Server(tmp_path) as server, Wire(server.tcp) as honest:
            queue = honest.open("q")
            before = server.rss_kib()
            sockets = []
            for number in range(count):
                port = (server.http, server.tcp)[number % 2]
                sockets.append(socket.create_connection(("127.0.0.1", port), 10))
                sockets[-1].sendall(slow[number % 2])
            for turn in range(20):
                for one in sockets[turn::20]:
                    one.sendall(b"x")
                assert honest.call(3, send_payload(queue, b"%d" % turn))[0] == 0
            assert server.rss_kib() - before < (100 << 10) * count // 2_000
            for one in sockets:
                one.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
