"""Two syncs at once: what each of them proves, in whatever order they end."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from engine_language import messages, opened, quiet

from penstock.engine import Queue, SendReceipt, Store, StorePoisonedError
from penstock.engine._core import Lane

SYNC = 2
COMMIT = 2       # the place beside the two syncs
WITHIN_S = 60


def until(true: Callable[[], bool]) -> None:
    """Wait for another thread."""
    end = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.001)


class Red:
    """A store whose syncs wait until they are let go, with a direct caller and a lane."""

    def __init__(self, path: Path) -> None:
        self.store: Store = quiet(opened(path))
        self.queue: Queue = self.store.queue("red")
        self.threads = ThreadPoolExecutor(2)
        # Both syncs have their files before anything is held, and the committer finds nothing to
        # flush when it starts.
        self.queue.append(b"zero")
        self.lane = Lane(self.store)

    def begin(self, body: bytes) -> Future[SendReceipt]:
        """Append on a thread; its sync has begun, and is held in slot 0."""
        self.lane._hold(0, True)
        stored = self.threads.submit(self.queue.append, body)
        until(lambda: self.lane._holding(0))
        return stored

    def stage(self, body: bytes, cookie: int) -> None:
        """Append through the lane."""
        assert self.lane._append(cookie, self.queue, body)
        self.lane._kick()

    def results(self) -> dict[int, SendReceipt | Exception]:
        """What the lane has to tell next."""
        found: dict[int, SendReceipt | Exception] = {}
        while not found:
            # It is also readable when something became visible.
            assert select.select([self.lane.fileno()], [], [], WITHIN_S)[0]
            found = dict(self.lane._results())
        return found

    def assert_silent(self, within_s: float = 0) -> None:
        """It tells nothing; that something became visible may be said at any time."""
        end = time.monotonic() + within_s
        while select.select([self.lane.fileno()], [], [], max(0, end - time.monotonic()))[0]:
            assert not dict(self.lane._results())

    def let_go(self, slot: int) -> None:
        self.lane._hold(slot, False)

    def close(self) -> None:
        for place in (0, 1, COMMIT):
            self.let_go(place)
        self.threads.shutdown()
        self.lane.close()
        self.store.close()


@pytest.fixture
def red(tmp_path: Path) -> Iterator[Red]:
    store = Red(tmp_path / "store")
    yield store
    store.close()


def test_what_a_later_sync_proved_stays_proved_when_the_earlier_one_ends(red: Red) -> None:
    first = red.begin(b"one")
    red.stage(b"two", 7)
    found = red.results()[7]
    assert isinstance(found, SendReceipt) and (found.offset, found.durability) == (2, "disk")
    assert not first.done() and messages(red.queue) == {0: b"zero", 1: b"one", 2: b"two"}
    durable = red.store.stat()["durable"]
    assert durable == red.store.stat()["written"]
    red.let_go(0)
    assert first.result(WITHIN_S).offset == 1
    assert red.store.stat()["durable"] == durable


def test_a_sync_proves_only_what_was_written_before_it_began(red: Red) -> None:
    first = red.begin(b"one")
    red.lane._hold(1, True)
    red.stage(b"two", 7)
    until(lambda: red.lane._holding(1))
    red.let_go(0)
    assert first.result(WITHIN_S).offset == 1
    assert messages(red.queue) == {0: b"zero", 1: b"one"}
    red.let_go(1)
    assert isinstance(red.results()[7], SendReceipt)
    assert messages(red.queue) == {0: b"zero", 1: b"one", 2: b"two"}


def test_a_sync_that_succeeds_after_another_failed_publishes_nothing(red: Red) -> None:
    red.store._fault(SYNC, errno.EIO)
    first = red.begin(b"one")
    red.store._fault(0, 0)
    red.lane._hold(1, True)
    red.stage(b"two", 7)
    until(lambda: red.lane._holding(1))
    red.let_go(0)
    with pytest.raises(StorePoisonedError):
        first.result(WITHIN_S)
    red.let_go(1)
    assert isinstance(red.results()[7], StorePoisonedError)
    assert messages(red.queue) == {0: b"zero"}


def test_a_failure_poisons_though_a_later_sync_had_succeeded(red: Red) -> None:
    red.store._fault(SYNC, errno.EIO)
    first = red.begin(b"one")
    red.store._fault(0, 0)
    red.stage(b"two", 7)
    assert isinstance(red.results()[7], SendReceipt)
    red.let_go(0)
    until(first.done)
    assert red.store.stat()["poisoned"]
    with pytest.raises(StorePoisonedError):
        red.queue.append(b"three")
    assert messages(red.queue)[2] == b"two"


def test_each_sync_has_an_open_file_of_its_own(red: Red) -> None:
    """Linux tells an error once to each open file; the last opened here is the second sync's."""
    log = os.path.join(red.store.path, "log/")
    held = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith(log):
                held.append(int(name))
        except OSError:
            continue
    assert len(held) >= 3
    reading, writing = os.pipe()
    os.dup2(reading, max(held))
    first = red.begin(b"one")
    red.stage(b"two", 7)
    assert isinstance(red.results()[7], StorePoisonedError)
    red.let_go(0)
    until(first.done)
    os.close(reading)
    os.close(writing)


def test_where_the_disk_is_slow_the_next_round_does_not_wait_for_the_last(red: Red) -> None:
    red.lane._pace(1_000_000)
    red.lane._hold(0, True)
    red.stage(b"one", 1)
    until(lambda: red.lane._holding(0))
    red.stage(b"two", 2)
    # The sync of the second proves the first too, and they are told in their order.
    assert list(red.results()) == [1, 2]
    assert red.lane._holding(0)
    red.let_go(0)
    assert messages(red.queue) == {0: b"zero", 1: b"one", 2: b"two"}


def test_a_lane_tells_nothing_before_its_sync_ended(red: Red) -> None:
    red.lane._hold(0, True)
    red.stage(b"one", 1)
    until(lambda: red.lane._holding(0))
    red.assert_silent(0.2)
    red.let_go(0)
    assert list(red.results()) == [1]


def test_a_round_for_the_kernel_does_not_tell_the_one_before_it_that_waits_for_the_disk(
    red: Red,
) -> None:
    red.lane._pace(1_000_000)
    red.lane._hold(0, True)
    red.stage(b"one", 1)
    until(lambda: red.lane._holding(0))
    red.lane._hold(1, True)
    assert red.lane._append(2, red.queue, b"two", durability="kernel")
    red.lane._kick()
    # It has been told by now, if it is; its committer goes on to flush it.
    until(lambda: red.lane._holding(1))
    red.assert_silent()
    red.let_go(1)
    assert list(red.results()) == [1, 2]


def test_rounds_of_a_slow_disk_are_written_in_the_order_they_were_staged(red: Red) -> None:
    red.lane._pace(1_000_000)
    red.lane._hold(COMMIT, True)
    red.stage(b"one", 1)
    until(lambda: red.lane._holding(COMMIT))
    red.stage(b"two", 2)
    # What would overtake gets the time to do so.
    red.assert_silent(0.2)
    red.let_go(COMMIT)
    while len(messages(red.queue)) < 3:
        red.results()
    assert messages(red.queue) == {0: b"zero", 1: b"one", 2: b"two"}


def resting(red: Red) -> None:
    """Let the committer go to sleep: only then does a loop commit by itself."""

    def alone() -> bool:
        red.lane._pace(100)
        assert red.lane._append(1, red.queue, b"first")
        committed = red.lane._commit()
        if committed:
            return bool(red.lane._results())
        red.lane._kick()
        return not red.results()

    until(alone)
    red.lane._pace(100)


def test_a_loop_that_commits_by_itself_has_its_results_at_once_and_on_disk(red: Red) -> None:
    resting(red)
    assert red.lane._append(3, red.queue, b"third") and red.lane._commit()
    assert not select.select([red.lane.fileno()], [], [], 0)[0]
    assert [(cookie, found.durability) for cookie, found in red.lane._results()] == [(3, "disk")]
    assert red.store.stat()["durable"] == red.store.stat()["written"]


def test_a_loop_does_not_commit_while_the_committer_does(red: Red) -> None:
    resting(red)
    red.lane._hold(0, True)
    red.stage(b"third", 3)
    until(lambda: red.lane._holding(0))
    assert red.lane._append(4, red.queue, b"fourth") and red.lane._commit() is False
    red.let_go(0)
    told: list[int] = []
    while len(told) < 2:
        told += red.results()
    assert told == [3, 4]


def test_a_loop_does_not_wait_for_a_slow_disk_nor_for_a_large_round(red: Red) -> None:
    resting(red)
    red.lane._pace(501)
    assert red.lane._commit() is None
    red.lane._pace(500)
    assert red.lane._commit() is False
    assert red.lane._append(3, red.queue, bytes(64 * 1024)) and red.lane._commit() is None
    for cookie in range(4, 20):
        assert red.lane._append(cookie, red.queue, b"small")
    assert red.lane._commit() is True
    red.lane._pace(100)
    for cookie in range(20, 24):
        assert red.lane._append(cookie, red.queue, bytes(64 * 1024))
    assert red.lane._commit() is None
    red.lane._kick()


def test_what_a_loop_wrote_for_the_kernel_is_on_disk_soon_after(red: Red) -> None:
    resting(red)
    assert red.lane._append(3, red.queue, b"third", durability="kernel") and red.lane._commit()
    until(lambda: red.store.stat()["durable"] == red.store.stat()["written"])


def test_a_failed_sync_is_told_to_a_loop_that_commits_by_itself(red: Red) -> None:
    resting(red)
    red.store._fault(SYNC, errno.EIO)
    assert red.lane._append(3, red.queue, b"third") and red.lane._commit()
    ((cookie, found),) = red.lane._results()
    assert cookie == 3 and isinstance(found, StorePoisonedError)
