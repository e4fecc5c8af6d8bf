"""A number that the wire has no room for is refused by its name, before anything is sent."""

import math

import pytest
from penstock import InvalidError, model
from penstock.request import Handle
from penstock.wire import Kind

HANDLE = Handle("q", "", True)


@pytest.mark.parametrize(("name", "call"), [
    ("max_messages", lambda n: model.receive_call(None, HANDLE, n, 0, 0, 0)),
    ("max_bytes", lambda n: model.receive_call(None, HANDLE, 1, 0, 0, n)),
    ("max_messages", lambda n: model.read_call(None, HANDLE, Kind.EARLIEST, 0, n, 0)),
])
@pytest.mark.parametrize("number", [-1, 1 << 32, 1 << 70])
def test_what_is_asked_for_is_within_32_bits(name, call, number):
    with pytest.raises(InvalidError, match=f"{name} is from 0 to 4294967295, not {number}"):
        call(number)


@pytest.mark.parametrize("number", [-1, 1 << 64])
def test_a_place_is_within_64_bits(number):
    with pytest.raises(InvalidError, match="offset is from 0"):
        model.place_of(None, number, None)
    with pytest.raises(InvalidError, match="time in µs is from 0"):
        model.place_of(None, None, number)


@pytest.mark.parametrize("seconds", [-0.1, math.nan, math.inf, 1e300, 4294968])
def test_a_span_that_is_none_is_refused(seconds):
    with pytest.raises(InvalidError, match="not a time that can be told"):
        model.milliseconds(seconds)


@pytest.mark.parametrize("moment", [-1, math.nan, math.inf, 1e300])
def test_a_moment_that_is_none_is_refused(moment):
    with pytest.raises(InvalidError, match="seconds since 1970"):
        model.micros(moment)


def test_the_limits_themselves_are_within():
    assert model.milliseconds(4294967.295) == 0xFFFFFFFF
    assert model.place_of(None, (1 << 64) - 1, None) == (Kind.OFFSET, (1 << 64) - 1)
    model.receive_call(None, HANDLE, 0xFFFFFFFF, 0, 0, 0xFFFFFFFF)
