"""Access keys: made, listed without their secrets, deleted, and the root pair of the operator."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_language import opened

from penstock.server.broker.access import KeyAsks, Keys, Pair, equal
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.limits import Limits


def test_a_key_lives_and_dies_in_every_worker(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        keys, other = Keys(Broker(store, Limits())), Keys(Broker(store, Limits()))
        assert keys.secrets() == other.secrets() == {}
        pair = keys.create("billing", 7)
        assert pair.id.startswith("AKID") and len(pair.id) == 36 and len(pair.secret) == 32
        assert keys.secrets() == other.secrets() == {pair.id: pair.secret}
        assert keys.shown() == [{"id": pair.id, "label": "billing", "created_us": 7}]
        other.delete(pair.id)
        assert keys.secrets() == {}
        with pytest.raises(BrokerError) as refused:
            keys.delete(pair.id)
        assert refused.value.kind is Kind.NOT_FOUND


def test_keys_outlive_the_store_that_made_them(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        pair = Keys(Broker(store, Limits())).create("", 0)
    with opened(tmp_path / "store") as store:
        assert Keys(Broker(store, Limits())).secrets() == dict([pair])


def test_the_root_pair_is_nobody_s_to_delete(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        keys = Keys(Broker(store, Limits()), Pair("AKIDroot", "a secret"[2:] + "xx"))
        assert keys.secrets() == {"AKIDroot": "secretxx"}
        assert [row["label"] for row in keys.shown()] == ["root"]
        with pytest.raises(BrokerError) as refused:
            keys.delete("AKIDroot")
        assert refused.value.kind is Kind.INVALID


@pytest.mark.parametrize("pair", [
    Pair("abc", "long enough"), Pair("AKIDx", "short"), Pair("AKID x", "long.enough"),
    Pair("AKIDx", "länger..."), Pair("AKIDx", "x" * 257), Pair("x" * 129, "long.enough"),
])  # fmt: skip
def test_a_pair_that_no_client_could_use_is_refused(pair: Pair, tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store, pytest.raises(BrokerError) as refused:
        Keys(Broker(store, Limits()), pair)
    assert refused.value.kind is Kind.INVALID


def test_the_asks(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        ask = KeyAsks(Keys(Broker(store, Limits())))
        made = ask("key.create", {"label": "x"}, 5)
        assert ask("key.list", {}, 6) == {
            "keys": [{"id": made["id"], "label": "x", "created_us": 5}]}
        with pytest.raises(BrokerError):
            ask("key.create", {"label": "x" * 257}, 5)
        assert ask("key.delete", {"id": made["id"]}, 7) == {}
        assert ask("key.list", {}, 8) == {"keys": []}


def test_signatures_are_compared_whole() -> None:
    assert equal(b"abc", b"abc") and not equal(b"abc", b"abd") and not equal(b"abc", b"ab")
