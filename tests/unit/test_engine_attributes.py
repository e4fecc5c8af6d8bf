"""What a message carries beside its body, and bodies that are placed a second time."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import Attributes, InvalidError, Store, TooLargeError
from penstock.engine.attributes import hash32, unpack

texts = st.text(max_size=40)
names = st.text(min_size=1, max_size=40)


@given(texts, texts, texts, st.dictionaries(names, texts, max_size=5))
def test_attributes_come_back(tag: str, key: str, route: str, properties: dict[str, str]) -> None:
    given = Attributes(tag=tag, key=key, routing_key=route, properties=properties)
    assert unpack(given.pack()) == given


@given(st.binary(max_size=200))
def test_any_bytes_are_attributes_or_an_error(packed: bytes) -> None:
    try:
        unpack(packed)
    except InvalidError:
        pass


def test_sizes_are_bounded() -> None:
    with pytest.raises(TooLargeError, match="65536"):
        Attributes(tag="x" * 65536).pack()
    with pytest.raises(TooLargeError):
        Attributes(tag="x" * 65530).pack() and Attributes(tag="x" * 65532).pack()
    with pytest.raises(InvalidError):
        Attributes(properties={"": "v"}).pack()
    with pytest.raises(InvalidError):
        Attributes(properties={"n" * 256: "v"}).pack()


def test_a_message_has_its_attributes_and_the_index_their_hashes(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", segment_size=1 << 20) as store:
        queue = store.queue("q")
        queue.append(b"plain")
        queue.append(b"both", attributes=Attributes(tag="a", key="k", properties={"n": "1"}))
        queue.append(b"raw", ext=Attributes(tag="b").pack())
        with pytest.raises(InvalidError):
            queue.append(b"", ext=b"e", attributes=Attributes())
        batch = queue.read(offset=0)
        assert batch.attributes(0) == Attributes()
        assert batch.attributes(1) == Attributes(tag="a", key="k", properties={"n": "1"})
        assert batch.attributes(2) == Attributes()
        entries = queue.index()
        assert entries["tag"].tolist() == [0, hash32("a"), 0]
        assert entries["key"].tolist() == [0, hash32("k"), 0]


def test_a_placed_message_is_stored_once_and_outlives_a_crash(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", segment_size=1 << 20) as store:
        first, second = store.queue("first"), store.queue("second")
        attributes = Attributes(tag="t", key="k")
        first.append(b"x" * 5000, attributes=attributes)
        position = int(first.index()["position"][0])
        before = store.stat()["written"]
        assert [store._place(second, position) for _ in range(3)] == [0, 1, 2]
        assert store.stat()["written"] - before == 3 * (64 + 48 + 8)
        for entry in ("tag", "key", "size"):
            assert np.unique(second.index()[entry]).tolist() == first.index()[entry].tolist()
        for name in (tmp_path / "s" / "ckpt").iterdir():
            name.unlink()
        store.queue("third").append(b"")
    for name in (tmp_path / "s" / "ckpt").iterdir():
        name.unlink()
    with Store.open(tmp_path / "s") as store:
        second = store.queue("second")
        batch = second.group().receive(10, lease_ms=1000)
        assert batch.tolist() == [b"x" * 5000] * 3
        assert batch.attributes(2) == attributes
        assert second.index()["tag"].tolist() == [hash32("t")] * 3


def test_a_place_that_leads_nowhere_is_counted_as_damage(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", segment_size=1 << 20) as store:
        queue = store.queue("q")
        store._place(queue, 1 << 32 | 4104)
        queue.append(b"good")
        assert queue.group().receive(10, lease_ms=1000).tolist() == [b"good"]
        assert store.stat()["corrupt"] == 1
