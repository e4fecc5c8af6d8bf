"""Notes: the broker's small objects in the one log."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engine_language import crashed, opened, quiet
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock.engine import ConflictError, InvalidError, Store, TooLargeError
from penstock.engine.check import check

VALUES = st.one_of(st.binary(max_size=300), st.integers(0, 65536).map(lambda size: b"v" * size))
NAMES = st.sampled_from(["a", "topic/a", "topic/b", "x" * 512, "topic/" + "y" * 300])


def test_a_note_is_set_read_replaced_and_removed(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        assert store.noted("a") is None and store.notes() == {}
        first = store.note("a", b"one")
        assert store.noted("a") == (b"one", first)
        second = store.note("a", b"two")
        assert second > first and store.noted("a") == (b"two", second)
        assert store.note("a", None) == 0 and store.noted("a") is None
        assert store.note("a", None) == 0


def test_notes_are_listed_by_the_beginning_of_their_names(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        for name in ("topic/b", "topic/a", "other", "topi"):
            store.note(name, name.encode())
        assert list(store.notes("topic/")) == ["topic/a", "topic/b"]
        assert store.notes("t") == {n: n.encode() for n in ("topi", "topic/a", "topic/b")}
        assert len(store.notes()) == 4


def test_sizes_are_bounded(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        for name in ("", "n" * 513):
            with pytest.raises(InvalidError):
                store.note(name, b"")
        with pytest.raises(TooLargeError):
            store.note("a", bytes(65537))
        store.note("n" * 512, b"v" * 65536)
        assert store.notes()["n" * 512] == b"v" * 65536


def test_who_expected_another_version_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        version = store.note("a", b"one", expect=0)
        with pytest.raises(ConflictError, match=f"version {version}"):
            store.note("a", b"other", expect=0)
        again = store.note("a", b"two", expect=version)
        with pytest.raises(ConflictError):
            store.note("a", None, expect=version)
        assert store.noted("a") == (b"two", again)
        store.note("a", None, expect=again)
        assert store.noted("a") is None


def test_a_change_is_seen_by_its_number(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store, opened(tmp_path / "s") as other:
        before = other.notes_version()
        store.note("a", b"1")
        assert other.notes_version() > before
        assert other.notes() == {"a": b"1"}


@pytest.mark.parametrize("checkpoint", [False, True])
def test_notes_outlive_a_crash(tmp_path: Path, checkpoint: bool) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        version = store.note("kept", b"k" * 9000)
        store.note("gone", b"g")
        store.note("gone", None)
        if checkpoint:
            store.checkpoint()
            store.note("later", b"l")
        expected = store.notes()
        with opened(crashed(store, tmp_path / "crash")) as after:
            assert after.notes() == expected
            assert after.noted("kept") == (b"k" * 9000, version)
            with pytest.raises(ConflictError):
                after.note("kept", b"", expect=version - 1)
    assert check(tmp_path / "s").problems == []


def test_many_notes_use_the_pages_of_those_that_went(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s", durability="kernel")) as store:
        def turn() -> int:
            for index in range(100):
                store.note(f"n{index}", bytes([index]) * (index * 60))
            assert all(value == bytes([int(name[1:])]) * (int(name[1:]) * 60)
                       for name, value in store.notes().items())
            for index in range(100):
                store.note(f"n{index}", None)
            return int(store.stat()["state_pages"])
        turn()
        first = turn()
        # Others take a page now and then: a segment's place in the table of what is needed.
        assert [turn() for _ in range(3)][-1] <= first + 4


def test_one_of_many_creators_wins(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        won: list[tuple[int, int]] = []

        def create(who: int) -> None:
            for index in range(30):
                try:
                    store.note(f"n{index}", str(who).encode(), expect=0)
                except ConflictError:
                    continue
                won.append((index, who))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(create, range(8)))
        assert sorted(index for index, _ in won) == list(range(30))
        assert store.notes() == dict(sorted((f"n{i}", str(who).encode()) for i, who in won))


class NotesModel(RuleBasedStateMachine):
    """A store's notes against a dict, over crashes and checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.TemporaryDirectory()
        self.life = 0
        self.store: Store = quiet(opened(Path(self.root.name, "0"), durability="kernel"))
        self.model: dict[str, bytes] = {}

    @rule(name=NAMES, value=VALUES)
    def put(self, name: str, value: bytes) -> None:
        self.store.note(name, value)
        self.model[name] = value

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        self.store.note(name, None)
        self.model.pop(name, None)

    @rule()
    def checkpoint(self) -> None:
        self.store.checkpoint()

    @rule(kill=st.booleans())
    def restart(self, kill: bool) -> None:
        self.life += 1
        if kill:
            after = crashed(self.store, Path(self.root.name, str(self.life)))
            self.store.close()
        else:
            self.store.close()
            after = Path(self.store.path)
        self.store = quiet(opened(after, durability="kernel"))

    @invariant()
    def the_same(self) -> None:
        assert self.store.notes() == dict(sorted(self.model.items()))
        assert set(self.store.notes("topic/")) == {n for n in self.model if n.startswith("topic/")}

    def teardown(self) -> None:
        self.store.close()
        self.root.cleanup()


NotesModel.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestNotes: Any = NotesModel.TestCase
