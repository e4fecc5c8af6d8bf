"""Dead letters by age: moved once, by whoever is due, past what is leased."""

from __future__ import annotations

from pathlib import Path

from engine_language import LONG, opened

from penstock.engine import Store
from penstock.server.broker import aging
from penstock.server.broker.aging import Aging
from penstock.server.broker.broker import Broker
from penstock.server.broker.defaults import Defaults, QueueDefaults
from penstock.server.broker.limits import Limits


def made(store: Store) -> Aging:
    broker = Broker(store, Limits())
    for name in ("Red", "Dead"):
        store.queue(name)
    QueueDefaults(broker).set("Red", Defaults(dead_letter="Dead", dead_after_ms=10_000))
    return Aging(broker)


def bodies(store: Store, name: str) -> list[bytes]:
    return [bytes(one) for one in store.queue(name).group().receive(1000, lease_ms=LONG)]


def test_what_nobody_confirmed_in_time_is_moved(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        age = made(store)
        queue = store.queue("Red")
        queue.append_many([b"%d" % at for at in range(6)])
        last_us = queue.stat()["last_us"]
        first = queue.group().receive(2, lease_ms=LONG)
        queue.group().confirm(first.receipts[:24])
        assert age.sweep(last_us + 9_999_000) == 0
        # 0 is confirmed, 1 leased.
        assert age.sweep(last_us + 10_000_001) == 4
        assert age.sweep(last_us + 10_000_001) == 0
        dead = store.queue("Dead").group().receive(10, lease_ms=LONG)
        assert [bytes(one) for one in dead] == [b"2", b"3", b"4", b"5"]
        origin = dead.origin(0)
        assert origin is not None and (origin.reason, origin.queue) == ("too old", queue.id)
        assert bodies(store, "Red") == []
        queue.append(b"young")
        assert age.sweep(last_us + 10_000_001) == 0
        queue.group().release(first.receipts[24:], delay_ms=0)
        assert age.sweep(last_us + 10_000_001) == 1 and bodies(store, "Red") == [b"young"]


def test_a_queue_full_of_leases_is_gone_through_in_steps(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        age = made(store)
        queue = store.queue("Red")
        held = aging.STEP * aging.STEPS
        for _ in range(aging.STEPS):
            queue.append_many([b"x"] * aging.STEP)
        queue.append_many([b"x"] * 3)
        queue.group().receive(held, lease_ms=LONG)
        now_us = queue.stat()["last_us"] + 11_000_000
        assert age.sweep(now_us) == 0
        assert age.sweep(now_us) == 3


def test_queues_that_are_gone_move_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        age = made(store)
        store.queue("Red").append(b"x")
        now_us = store.queue("Red").stat()["last_us"] + 11_000_000
        store.delete("Dead")
        assert age.sweep(now_us) == 0 and bodies(store, "Red") == [b"x"]
        store.delete("Red")
        assert age.sweep(now_us) == 0
