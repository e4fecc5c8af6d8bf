"""What both CMQ adapters share: codes and texts, ids of messages, defaults of queues."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_language import opened
from hypothesis import given
from hypothesis import strategies as st

from penstock.server._wire import MessageNames, names_after
from penstock.server.broker.broker import Broker
from penstock.server.broker.cmq.faults import FAULTS, CmqError, Fault, fault_of
from penstock.server.broker.cmq.ids import GIVEN, id_of, placed_id
from penstock.server.broker.defaults import Defaults, QueueDefaults
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.limits import Limits


def test_the_table_of_faults_is_total() -> None:
    assert set(FAULTS) == set(Kind)
    assert fault_of(BrokerError(Kind.NOT_FOUND, "x")).text == (
        "(10100)queue is not existed, or deleted: x")


def test_the_texts_that_programs_compare() -> None:
    assert CmqError(Fault.NO_MESSAGE).text == "(10200)no message"
    assert CmqError(Fault.HANDLE).text == "(10260)receipt handle is invalid"
    assert Fault.NO_MESSAGE.code == 7000 and Fault.NO_MESSAGE.module == 10200


@given(st.integers(1, (1 << 32) - 1), st.integers(0, (1 << 40) - 1))
def test_an_id_names_one_place(queue: int, offset: int) -> None:
    found = placed_id(queue, offset)
    assert 0 < found < GIVEN or queue % (1 << 22) == 0
    assert placed_id(queue, offset + 1 & (1 << 40) - 1) != found


def test_a_name_that_was_given_is_the_id(tmp_path: Path) -> None:
    shared = bytearray(16)
    names, others = MessageNames(shared), MessageNames(shared)
    given_ids = [one.give(1_790_000_000_000_000, 1)[0] for _ in range(500)
                 for one in (names, others)]
    assert len(set(given_ids)) == 1000 and all(GIVEN <= one < 1 << 63 for one in given_ids)
    assert id_of(5, 7, str(given_ids[0])) == given_ids[0]
    for carried in ("", "order-17", "17", str(1 << 63), "9" * 30, "²", str(GIVEN - 1)):
        assert id_of(5, 7, carried) == placed_id(5, 7)
    [after, last] = names.give(0, 2)
    assert given_ids[-1] < after < last < others.give(0, 1)[0]
    assert list(names_after(after, 2)) == [after, last]


def test_defaults_are_those_of_the_queue_in_every_worker(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        one, other = (QueueDefaults(Broker(store, Limits())) for _ in range(2))
        assert one.of("red") == Defaults()
        one.set("red", Defaults(lease_ms=7, labels={"cmq": "1"}))
        assert one.of("red") == other.of("red") == Defaults(lease_ms=7, labels={"cmq": "1"})
        version = other.noted("red")[1]
        one.set("red", Defaults(lease_ms=8), expect=version)
        with pytest.raises(BrokerError) as refused:
            other.set("red", Defaults(lease_ms=9), expect=version)
        assert refused.value.kind is Kind.EXISTS and other.of("red").lease_ms == 8
        assert other.all() == {"red": Defaults(lease_ms=8)}
        one.remove("red")
        assert other.of("red") == Defaults()


@pytest.mark.parametrize("wrong", [
    Defaults(lease_ms=0), Defaults(lease_ms=1 << 40), Defaults(wait_ms=-1), Defaults(messages=-1),
    Defaults(wait_ms=1 << 40), Defaults(dead_after_ms=5), Defaults(dead_letter="no such name!"),
])  # fmt: skip
def test_defaults_that_cannot_be_are_refused(wrong: Defaults, tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store, pytest.raises(BrokerError) as refused:
        QueueDefaults(Broker(store, Limits())).set("red", wrong)
    assert refused.value.kind is Kind.INVALID
