"""The awaitable calls: tasks share an fsync; waits end by arrival, by time and by closing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable as Waits
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_language import opened, quiet

from penstock.engine import Attributes, QueueNotFoundError, Store, StoreClosedError
from penstock.engine.aio import Awaitable


def run(path: Path, scene: Callable[[Store, Awaitable], Waits[None]]) -> None:
    async def main(store: Store) -> None:
        async with Awaitable(store) as calls:
            await asyncio.wait_for(scene(store, calls), 30)

    with quiet(opened(path / "store")) as store:
        asyncio.run(main(store))


def test_tasks_share_their_syncs(tmp_path: Path) -> None:
    async def scene(store: Store, calls: Awaitable) -> None:
        queue = store.queue("q")
        before = store.stat()["fsyncs"]
        bodies = [b"%d" % number for number in range(1000)]
        receipts = await asyncio.gather(*(calls.append(queue, body) for body in bodies))
        assert [receipt.offset for receipt in receipts] == list(range(1000))
        assert {receipt.durability for receipt in receipts} == {"disk"}
        assert store.stat()["durable"] == store.stat()["written"]
        assert store.stat()["fsyncs"] - before < 100
        assert queue.read(offset=0).tolist() == bodies

    run(tmp_path, scene)


def test_more_than_a_round_holds_waits_for_room(tmp_path: Path) -> None:
    async def scene(store: Store, calls: Awaitable) -> None:
        queue = store.queue("q")
        many = [calls.append_many(queue, [b"%d" % one * 500] * 50) for one in range(100)]
        receipts = await asyncio.gather(*many)
        assert sorted(receipt.offset for receipt in receipts) == list(range(0, 5000, 50))
        assert sum(receipt.count for receipt in receipts) == queue.stat()["next"] == 5000

    run(tmp_path, scene)


def test_what_is_received_is_confirmed_once(tmp_path: Path) -> None:
    async def scene(store: Store, calls: Awaitable) -> None:
        queue = store.queue("q")
        group = queue.group()
        await calls.append(queue, b"a", attributes=Attributes(tag="t"))
        batch = await calls.receive(group, 10, lease_ms=60_000)
        assert batch.tolist() == [b"a"]
        assert batch.attributes(0).tag == "t"
        assert await calls.confirm(group, batch.receipts) == b"\0"
        assert await calls.confirm(group, batch.receipts) == b"\1"
        assert await calls.confirm(group, b"\0" * 24) == b"\2"
        assert store.stat()["durable"] == store.stat()["written"]
        assert len(await calls.receive(group, 10)) == 0

    run(tmp_path, scene)


def test_what_is_received_is_kept_given_back_and_sought(tmp_path: Path) -> None:
    async def scene(store: Store, calls: Awaitable) -> None:
        queue = store.queue("q")
        group = queue.group()
        await calls.append_many(queue, [b"a", b"b"])
        batch = await calls.receive(group, 10, lease_ms=60_000)
        assert await calls.extend(group, batch.receipts, lease_ms=120_000) == b"\0\0"
        assert await calls.release(group, batch.receipts, delay_ms=0, reason="later") == b"\0\0"
        again = await calls.receive(group, 10, lease_ms=60_000)
        assert again.attempts.tolist() == [2, 2]
        assert await calls.confirm(group, batch.receipts) == b"\1\1"
        assert await calls.confirm(group, again.receipts) == b"\0\0"
        assert await calls.seek(group, offset=1) == (1, 1)
        assert (await calls.receive(group, 10)).tolist() == [b"b"]
        await calls.aclose()
        with pytest.raises(StoreClosedError):
            await calls.seek(group, offset=0)

    run(tmp_path, scene)


def test_a_receiver_waits_for_an_arrival_and_for_a_lease_to_end(tmp_path: Path) -> None:
    async def scene(store: Store, calls: Awaitable) -> None:
        queue = store.queue("q")
        group = queue.group()
        waiting = asyncio.create_task(calls.receive(group, 1, wait_ms=20_000, lease_ms=30))
        await asyncio.sleep(0)
        assert not waiting.done()
        # From outside the lane: another caller of the store, as another process would be.
        await asyncio.to_thread(queue.append, b"late")
        assert (await waiting).tolist() == [b"late"]
        again = await calls.receive(group, 1, wait_ms=20_000, lease_ms=60_000)
        assert again.tolist() == [b"late"]
        assert again.attempts.tolist() == [2]
        assert len(await calls.receive(group, 1, wait_ms=10)) == 0

    run(tmp_path, scene)


def test_refusals_name_their_reason_and_a_cancelled_append_is_stored(tmp_path: Path) -> None:
    async def scene(store: Store, calls: Awaitable) -> None:
        queue, gone = store.queue("q"), store.queue("gone")
        store.delete("gone")
        with pytest.raises(QueueNotFoundError):
            await calls.append(gone, b"x")
        task = asyncio.create_task(calls.append(queue, b"kept"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await calls.append(queue, b"next")
        assert queue.read(offset=0).tolist() == [b"kept", b"next"]

    run(tmp_path, scene)


def test_closing_ends_who_waits_and_stores_what_is_staged(tmp_path: Path) -> None:
    async def scene(store: Store, calls: Awaitable) -> None:
        queue = store.queue("q")
        parked = asyncio.create_task(calls.receive(queue.group(), 1, wait_ms=20_000))
        staged = asyncio.create_task(calls.append(queue, b"staged"))
        await asyncio.sleep(0)
        calls.close()
        for task in (parked, staged):
            with pytest.raises(StoreClosedError):
                await task
        assert queue.read(offset=0).tolist() == [b"staged"]
        with pytest.raises(StoreClosedError):
            await calls.append(queue, b"after")

    run(tmp_path, scene)
