"""Both clients against a server in memory that hangs up, refuses and keeps silent."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable

import pytest
from client_fake import Background, FakeServer

import penstock
from penstock import AsyncClient, AsyncMessage, Client, Receipt
from penstock.wire import Status, Verb


def with_server(test: Callable[[FakeServer, AsyncClient], Awaitable[None]]) -> None:
    async def run() -> None:
        server = FakeServer()
        await server.start()
        try:
            async with AsyncClient(server.address, timeout=5.0) as client:
                await test(server, client)
        finally:
            await server.stop()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_aio_sends_receives_confirms_and_seeks() -> None:
    async def test(server: FakeServer, client: AsyncClient) -> None:
        queue = await client.queue("q")
        assert await queue.send(b"one", ext=b"e") == Receipt(0, "disk", False, 1, "q")
        assert await queue.send_many([b"two", bytearray(b"three")], "kernel") == Receipt(
            1, "kernel", False, 2, "q"
        )
        messages = await queue.receive(10)
        assert [(m.offset, m.body, m.attempts) for m in messages] == [
            (0, b"one", 1), (1, b"two", 1), (2, b"three", 1)
        ]
        assert messages[0].ext == b"e" and messages[0].leased
        await messages[0].confirm()
        with pytest.raises(penstock.StaleError):
            await messages[0].confirm()
        each = await queue.send_each([b"x"] * 2500, window=700)
        assert [receipt.offset for receipt in each] == list(range(3, 2503))
        await messages[1].extend(5)
        await messages[1].release()
        assert (await queue.seek(offset=1)).messages == 2502
        assert [m.body for m in await queue.peek(offset=1)] == [b"two"]
        assert not (await queue.peek())[0].leased
        assert await queue.receive(0, wait=0) == []
        assert (await client.show("q"))["asked"] == {"do": "queue.show", "name": "q"}
        await client.ping()

    with_server(test)


def test_aio_writes_all_sends_of_one_turn_at_once_and_appends_once_after_a_break() -> None:
    async def test(server: FakeServer, client: AsyncClient) -> None:
        queue = await client.queue("q")
        # The server stores the 50th and dies before it can answer any.
        server.store_then_hang_up = 50
        receipts = await asyncio.gather(*(queue.send(b"%d" % n) for n in range(100)))
        stored = [body for _, body, _ in server.queues["q"].log]
        assert stored == [b"%d" % n for n in range(100)]
        assert [receipt.offset for receipt in receipts] == list(range(100))
        assert any(receipt.duplicate for receipt in receipts)

    with_server(test)


def test_aio_errors_and_silence() -> None:
    async def test(server: FakeServer, client: AsyncClient) -> None:
        queue = await client.queue("q")
        server.refuse[Verb.SEND] = Status.BUSY
        with pytest.raises(penstock.BusyError) as caught:
            await queue.send(b"x")
        assert caught.value.retry_after_ms == 7
        with pytest.raises(penstock.QueueNotFoundError):
            await client.queue("nope", create=False)
        with pytest.raises(penstock.InvalidError):
            await queue.send(b"x", durability="ram")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await queue.send("text")  # type: ignore[arg-type]
        server.mute |= {Verb.SEND_BATCH, Verb.PING}
        client.timeout = 0.05
        with pytest.raises(TimeoutError):
            await client.ping()
        client.timeout = 5.0
        pending = asyncio.create_task(queue.send_many([b"x"]))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(penstock.ClosedError):
            await pending

    with_server(test)


def test_a_loop_confirms_what_returned_and_releases_what_raised() -> None:
    async def test(server: FakeServer, client: AsyncClient) -> None:
        queue = await client.queue("q")
        await queue.send_many([b"%d" % n for n in range(6)])

        async def loop() -> None:
            async for message in queue.consume(concurrency=4):
                if message.offset == 2:
                    raise ValueError("cannot")

        with pytest.raises(ValueError, match="cannot"):
            await loop()
        while len(server.released) < 2:
            await asyncio.sleep(0.005)
        assert server.confirmed == [0, 1] and server.released == [2, 3]

    with_server(test)


def test_a_loop_that_is_left_has_confirmed_and_released_before_its_client_is_closed() -> None:
    async def run() -> None:
        server = FakeServer()
        await server.start()
        try:
            with pytest.raises(ValueError, match="cannot"):
                async with AsyncClient(server.address, timeout=5.0) as client:
                    queue = await client.queue("q")
                    await queue.send_many([b"%d" % n for n in range(6)])
                    async for message in queue.consume(concurrency=4):
                        if message.offset == 2:
                            raise ValueError("cannot")
            assert server.confirmed == [0, 1] and server.released == [2, 3]
        finally:
            await server.stop()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_closing_a_client_confirms_what_handlers_did_and_leaves_them_what_they_work_at() -> None:
    async def test(server: FakeServer, client: AsyncClient) -> None:
        queue = await client.queue("q")
        await queue.send_many([b"quick", b"slow"])
        end = asyncio.Event()

        async def handle(message: AsyncMessage) -> None:
            if message.body == b"slow":
                await end.wait()

        task = asyncio.ensure_future(asyncio.wait_for(queue.consume(handle), 20))
        while server.confirmed != [0]:
            await asyncio.sleep(0.005)
        await client.close()
        end.set()
        with pytest.raises(penstock.ClosedError):
            await task
        assert server.released == []

    with_server(test)


def test_what_comes_in_the_turn_of_a_cancel_is_given_back() -> None:
    async def test(server: FakeServer, client: AsyncClient) -> None:
        queue = await client.queue("q")
        await queue.send_many([b"0", b"1"])
        task = asyncio.create_task(queue.receive(2))
        answered = client.answered

        def cancelled_as_well() -> None:
            # The reply is taken, and its receiver is still to be woken.
            if Verb.RECEIVE in server.frames:
                task.cancel()
            answered()

        client.answered = cancelled_as_well  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await task
        while server.released != [0, 1]:
            await asyncio.sleep(0.005)

    with_server(test)


def test_a_handler_runs_at_once_extends_its_leases_and_drains_on_cancel() -> None:
    async def test(server: FakeServer, client: AsyncClient) -> None:
        queue = await client.queue("q")
        await queue.send_many([b"bad", b"slow", b"slow"])
        running = 0

        async def handle(message: AsyncMessage) -> None:
            nonlocal running
            if message.body == b"bad" and message.attempts == 1:
                raise ValueError("bad")
            running += 1
            await asyncio.sleep(0.15)

        async def work() -> None:
            await queue.consume(handle, concurrency=3, lease=0.09)

        task = asyncio.create_task(work())
        while running < 2 or not server.extended:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert {1, 2} <= set(server.confirmed) and 0 in server.released

    with_server(test)


def test_a_blocking_loop_confirms_what_returned_and_releases_what_raised() -> None:
    with Background() as server, Client.connect(server.address) as client:
        queue = client.queue("q")
        queue.send_many([b"%d" % n for n in range(6)])
        seen = []

        def loop() -> None:
            for message in queue.consume(concurrency=4):
                if message.offset == 2 and message.attempts == 1:
                    raise ValueError("cannot")
                seen.append(message.offset)
                if message.offset == 5:
                    break

        with pytest.raises(ValueError, match="cannot"):
            loop()
        assert server.confirmed == [0, 1] and server.released == [2, 3]
        loop()
        # What was left by a break was not done.
        assert sorted(server.confirmed) == [0, 1, 2, 3, 4] and server.released == [2, 3, 5]
        assert seen[:2] == [0, 1] and sorted(seen[2:]) == [2, 3, 4, 5]
        with pytest.raises(penstock.InvalidError):
            queue.consume(concurrency=0)
        assert not [t for t in threading.enumerate() if t.name == "penstock-leases"]


def test_a_blocking_loop_extends_what_it_holds() -> None:
    with Background() as server, Client(server.address) as client:
        queue = client.queue("q")
        queue.send_many([b"0", b"1"])
        for message in queue.consume(lease=0.03):
            extended = len(server.extended)
            while len(server.extended) == extended:
                threading.Event().wait(0.002)
            if message.offset == 1:
                break
        assert {0, 1} <= set(server.extended) and server.confirmed == [0]


# What only one of two clients has: what asyncio alone can do, and parts that our other files use.
ONLY = {
    "Client": {"issue", "next_check", "wait"},
    "AsyncClient": {"answered", "attach", "detach", "flush", "flush_soon", "room", "start"},
    "AsyncQueue": {"send_nowait"},
}


@pytest.mark.parametrize(
    ("blocking", "awaited"),
    [(Client, AsyncClient), (penstock.Queue, penstock.AsyncQueue),
     (penstock.Message, penstock.AsyncMessage)],
)  # fmt: skip
def test_both_clients_have_the_same_names(blocking: type, awaited: type) -> None:
    one, other = (
        {name for name in dir(kind) if not name.startswith("_")} - ONLY.get(kind.__name__, set())
        for kind in (blocking, awaited)
    )
    assert one == other


def test_an_unreachable_server_is_told_at_once_and_a_lost_one_in_time() -> None:
    with pytest.raises(penstock.ConnectionLostError):
        Client("127.0.0.1:1", connect_for=0)
    with Background() as server:
        client = Client(server.address, reconnect_for=0.05)
    with pytest.raises(penstock.ConnectionLostError):
        client.ping()
    client.close()
    with pytest.raises(penstock.ClosedError):
        client.ping()


def test_sync_does_the_same_under_the_same_names() -> None:
    with Background() as server, penstock.connect(server.address) as client:
        queue = client.queue("q")
        assert queue.send(b"one") == Receipt(0, "disk", False, 1, "q")
        assert queue.send_many([b"two", b"three"]).messages == 2
        assert [r.offset for r in queue.send_each([b"x"] * 2500)] == list(range(3, 2503))
        first, second = queue.receive(2)
        first.confirm()
        second.extend(3)
        second.release()
        assert [v.name for v in client.confirm([first])] == ["STALE"]
        assert queue.seek("latest").offset == 2503
        assert [m.body for m in queue.peek(max_messages=2)] == [b"one", b"two"]
        assert queue.group("g").group_name == "g"
        server.hang_up()
        assert queue.send(b"after").offset == 2503


def test_threads_share_a_client_and_none_waits_for_another() -> None:
    with Background() as server, Client(server.address) as client:
        queue = client.queue("q")
        found: list[bytes] = []
        waiting = threading.Thread(
            target=lambda: found.extend(m.body for m in queue.receive(1, wait=5))
        )
        waiting.start()
        client.ping()

        def send() -> None:
            for _ in range(100):
                queue.send(b"x")

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in (*threads, waiting):
            thread.join(10)
        assert found == [b"x"] and len(server.queues["q"].log) == 400


def test_sync_times_out_and_goes_on() -> None:
    with Background() as server, Client(server.address, timeout=0.05) as client:
        queue = client.queue("q")
        server.mute.add(Verb.SEND)
        with pytest.raises(penstock.TimeoutError):
            queue.send(b"x")
        client.ping()


def test_a_program_that_only_sends_pays_for_no_server() -> None:
    heavy = ("asyncio", "numpy", "penstock.aio", "penstock.server", "penstock.engine")
    code = f"import sys, penstock; sys.exit(any(m in sys.modules for m in {heavy}))"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert ended.returncode == 0
    assert set(penstock.__all__) <= {*dir(penstock), "AsyncClient", "AsyncMessage", "AsyncQueue"}
