"""The engine's smallest steps, timed: only with --benchmark-enable, else each runs once as a test.

    make test ARGS="tests/bench/test_micro.py --benchmark-enable --benchmark-autosave"
    make test ARGS="tests/bench/test_micro.py --benchmark-enable --benchmark-compare"
"""

import itertools

import pytest
from penstock import wire
from penstock.engine import Attributes, Store
from penstock.engine.attributes import unpack

BODY = b"x" * 128


@pytest.fixture
def queue(tmp_path):
    with Store.open(tmp_path / "store", segment_size=8 << 20, durability="kernel") as store:
        queue = store.queue("micro")
        queue.append_many([BODY] * 1000)
        yield queue


@pytest.mark.parametrize("batch", [1, 100])
def test_append(benchmark, queue, batch):
    before = queue.stat()["next"]
    benchmark(queue.append_many, [BODY] * batch)
    assert queue.stat()["next"] > before


def test_append_with_attributes(benchmark, queue):
    told = Attributes(tag="paid", key="k", properties={"price": "3"})
    receipt = benchmark(queue.append, BODY, attributes=told)
    assert receipt.durability == "kernel"


@pytest.mark.parametrize("batch", [1, 100])
def test_receive_and_release(benchmark, queue, batch):
    group = queue.group()

    def work():
        found = group.receive(batch)
        group.release(found.receipts)
        return len(found)

    queue.store._flush()
    assert benchmark(work) == batch


def test_read_as_arrays(benchmark, queue):
    queue.store._flush()
    assert benchmark(queue.read, offset=0, max_messages=100).sizes.sum() == 100 * len(BODY)


def test_read_as_bytes(benchmark, queue):
    queue.store._flush()
    assert benchmark(lambda: queue.read(offset=0, max_messages=100).tolist()) == [BODY] * 100


def test_open_a_queue(benchmark, queue):
    # Each is made before the clock runs.
    made = [queue.store.queue(f"q{number}").name for number in range(100)]
    names = itertools.cycle(made)
    assert benchmark(lambda: queue.store.queue(next(names))).name.startswith("q")


def test_find_a_time(benchmark, queue):
    queue.store._flush()
    time_us = int(queue.index(500, 501)["stored_us"][0])
    assert 0 <= benchmark(queue.offset_at, time_us) <= 500


def test_pack_attributes(benchmark):
    told = Attributes(tag="paid", key="k", properties={"price": "3", "color": "red"})
    assert unpack(benchmark(told.pack)) == told


def test_encode_a_send(benchmark):
    assert benchmark(wire.send, 1, 7, wire.Durability.DISK, 0, BODY).endswith(BODY)
