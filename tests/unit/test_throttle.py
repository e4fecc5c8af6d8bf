"""Quotas: rates, room and leases, by queue and by namespace, and how each door says later."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock
from penstock.engine import Store
from penstock.server._wire import Gates
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.limits import Limits
from penstock.server.broker.throttle import Plan, Quota, Quotas, Rule

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server, Wire, receive_payload, send_payload
from test_http_door import OCTETS, ask

SECOND = 10**9
START = 10**15


def rule(cell: int, rate: float, burst: float = 1.0, receives: float = 0) -> Rule:
    return cell, rate, 0, receives, burst, False, False, False, 0, 0


def gates(*rules: tuple[float, float], members: list[tuple[int, int, int]]) -> Gates:
    """Gates with rules of (messages/s, burst in s)."""
    made = Gates(bytearray(4096))
    made.replace(
        [rule(8 * at, rate, burst) for at, (rate, burst) in enumerate(rules, 1)],
        members,
    )
    return made


def test_a_rate_lets_its_burst_through_and_then_its_rate() -> None:
    made = gates((10, 1), members=[(7, 0, -1)])
    # Ten of the burst, and one on credit: a batch larger than the burst must be able to pass too.
    assert [made.admit(7, 1, 0, START) for _ in range(12)] == [0] * 11 + [101]
    assert made.admit(7, 1, 0, START + SECOND // 10 - 1) == 1
    assert made.admit(7, 1, 0, START + SECOND // 10) == 0
    assert made.admit(8, 1, 0, START) == 0


def test_a_large_batch_passes_and_is_paid_for_afterwards() -> None:
    made = gates((10, 1), members=[(7, 0, -1)])
    assert made.admit(7, 1000, 0, START) == 0
    assert made.admit(7, 1, 0, START) == 99_001
    assert made.admit(7, 1, 0, START + 99 * SECOND) == 0


def test_the_narrower_of_queue_and_namespace_counts_and_a_refusal_costs_nothing() -> None:
    made = gates((1, 1), (1000, 1), members=[(7, 0, 1), (9, -1, 1)])
    assert made.admit(7, 1, 0, START) == made.admit(7, 1, 0, START) == 0
    for _ in range(5000):
        assert made.admit(7, 1, 0, START) > 0
    assert [made.admit(9, 1, 0, START) for _ in range(999)] == [0] * 999
    assert made.admit(9, 1, 0, START) > 0


def test_workers_share_one_rate() -> None:
    shared = bytearray(4096)
    one, other = Gates(shared), Gates(shared)
    for made in (one, other):
        made.replace([(8, 10, 0, 0, 1.0, False, False, False, 0, 0)], [(7, 0, -1)])
    passed = [made.admit(7, 1, 0, START) for _ in range(10) for made in (one, other)]
    assert passed.count(0) == 11


def test_there_is_an_end_to_cells_and_the_old_rules_stay() -> None:
    made = Gates(bytearray(16))
    made.replace([(8, 1, 0, 0, 1.0, False, False, False, 0, 0)], [(7, 0, -1)])
    with pytest.raises(MemoryError):
        made.replace([(16, 1, 0, 0, 1.0, False, False, False, 0, 0)], [(9, 0, -1)])
    assert made.count == 1 and made.admit(9, 1, 0, START) == 0


steps = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 30), st.integers(0, 300_000_000)), max_size=60
)


@settings(max_examples=300)
@given(steps, st.sampled_from([1.0, 10.0, 250.0]), st.sampled_from([0.1, 1.0, 3.0]))
def test_gates_do_what_a_plain_bucket_does(
    steps: list[tuple[int, int, int]], rate: float, burst: float
) -> None:
    made = gates((rate, burst), (2 * rate, burst), members=[(1, 0, 1), (2, -1, 1)])
    full = [rate * burst, 2 * rate * burst]
    level, at, now = list(full), START, START
    for queue, count, passed in steps:
        now += passed
        level = [
            min(most, had + (now - at) / SECOND * factor * rate)
            for had, most, factor in zip(level, full, (1, 2))
        ]
        at = now
        mine = {0: [], 1: [0, 1], 2: [1]}[queue]
        closed = made.admit(queue, count, 0, now)
        if any(abs(level[one]) < 1e-4 for one in mine):
            return      # on the border either answer is right
        assert (closed == 0) == all(level[one] > 0 for one in mine)
        if not closed:
            for one in mine:
                level[one] -= count


@pytest.fixture
def quotas(tmp_path: Path) -> Iterator[Quotas]:
    with Store.open(tmp_path / "s", segment_size=1 << 20) as store:
        yield Quotas(Broker(store, Limits()))


def test_a_plan_names_whom_a_quota_binds_and_what_is_left(quotas: Quotas) -> None:
    store = quotas.store
    assert quotas.plan() == Plan([], [], [], [])
    own, other, free = (store.queue(name) for name in ("a/own", "a/other", "free"))
    quotas.set("queue", "a/own", Quota(messages=10))
    quotas.set("namespace", "a", Quota(messages=20, bytes=10_000, messages_per_s=5))
    own.append_many([b"x" * 52] * 4)
    other.append(b"")
    batch = own.group().receive(2)
    own.group().confirm(batch.receipts)
    plan = quotas.plan()
    rules = {rule[0]: at for at, rule in enumerate(plan.rules)}
    (space, outer, size, _), (mine, room, unbounded, _) = plan.rooms
    assert sorted(plan.members) == sorted([
        (own.id, rules[mine], rules[space]), (other.id, -1, rules[space])
    ])  # fmt: skip
    assert (room, unbounded, outer) == (8, None, 17) and size is not None and 9_000 < size < 10_000
    assert free.id not in [queue for queue, _, _ in plan.members]
    quotas.remove("namespace", "a")
    with pytest.raises(BrokerError):
        quotas.remove("namespace", "a")
    assert len(quotas.plan().members) == 1


def test_quotas_outlive_a_restart_and_are_bounded(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", segment_size=1 << 20) as store:
        quotas = Quotas(Broker(store, Limits(quotas=1)))
        quotas.set("namespace", "n", Quota(queues=2))
        quotas.set("namespace", "n", Quota(queues=1))
        with pytest.raises(BrokerError) as refused:
            quotas.set("queue", "q", Quota(messages=1))
        assert refused.value.kind is Kind.TOO_LARGE
    with Store.open(tmp_path / "s") as store:
        broker = Broker(store, Limits())
        quotas = Quotas(broker)
        assert quotas.get("namespace", "n") == Quota(queues=1)
        broker.guards.append(quotas.guard)
        broker.open("n/one", create=True)
        broker.open("n/one", create=True)
        broker.open("other", create=True)
        with pytest.raises(BrokerError) as refused:
            broker.open("n/two", create=True)
        assert refused.value.kind is Kind.THROTTLED and refused.value.limit == 1


WRONG: list[tuple[str, str, Quota]] = [
    ("topic", "q", Quota()),
    ("queue", "a b", Quota()),
    ("namespace", "a/b", Quota()),
    ("namespace", "", Quota()),
    ("namespace", "..", Quota()),
    ("queue", "q", Quota(queues=1)),
    ("queue", "q", Quota(messages_per_s=-1)),
    ("queue", "q", Quota(messages_per_s=float("nan"))),
    ("queue", "q", Quota(bytes=-1)),
    ("queue", "q", Quota(in_flight=1 << 32)),
    ("queue", "q", Quota(burst_s=0)),
    ("queue", "q", Quota(pending=-1)),
    ("key", "AKID", Quota(messages=1)),
    ("key", "AKID", Quota(pending=1)),
    ("key", "AK ID", Quota(messages_per_s=1)),
    ("key", "ä" * 8, Quota(messages_per_s=1)),
]


@pytest.mark.parametrize(("scope", "name", "quota"), WRONG)
def test_a_quota_that_cannot_be_is_refused(
    quotas: Quotas, scope: str, name: str, quota: Quota
) -> None:
    with pytest.raises(BrokerError) as refused:
        quotas.set(scope, name, quota)
    assert refused.value.kind is Kind.INVALID


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store"), workers=2) as running:
        yield running


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_door_says_when_to_come_again(server: Server) -> None:
    ask(server, "PUT", "/v1/queues/slow%2Fq")
    path = "/v1/queues/slow%2Fq/messages"
    assert ask(server, "POST", path, b"x", **OCTETS)[0] == 201
    slow = {"messages_per_s": 0.01, "burst_s": 100}
    assert ask(server, "PUT", "/v1/quotas/namespace/slow", slow)[0] == 200
    assert ask(server, "GET", "/v1/quotas")[1]["quotas"][0]["quota"] == slow
    # Each connection may be another worker's, and each worker has to notice.
    until(lambda: all(ask(server, "POST", path, b"x", **OCTETS)[0] == 429 for _ in range(16)))
    for body, head in ((b"x", OCTETS), ({"body": "x"}, {})):
        status, problem, fields = ask(server, "POST", path, body, **head)
        assert (status, problem["type"]) == (429, "urn:penstock:problem:throttled")
        assert 1 <= int(fields["Retry-After"]) <= 3600
        assert 0 < problem["retry_after_ms"] <= int(fields["Retry-After"]) * 1000
    for _ in range(4):
        with Wire(server.tcp) as wire:
            queue = wire.open("slow/q")
            batch = send_payload(queue, b"")[:16] + bytes([1, 0, 0, 0]) + bytes(8)
            for verb, payload in ((3, send_payload(queue, b"x")), (4, batch)):
                status, answer = wire.call(verb, payload)
                assert status == 13 and 0 < int.from_bytes(answer[:4], "little") <= 3_600_000
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        with pytest.raises(penstock.ThrottledError) as refused:
            client.queue("slow/q").send(b"x")
        assert refused.value.retry_after_ms > 0
        client.queue("other").send(b"x")
        client.admin("quota.remove", scope="namespace", name="slow")
    until(lambda: ask(server, "POST", path, b"x", **OCTETS)[0] == 201)
    assert ask(server, "GET", "/v1/quotas/namespace/slow")[0] == 404
    assert ask(server, "PUT", "/v1/quotas/namespace/slow", {"mesages": 1})[0] == 400
    assert ask(server, "PUT", "/v1/quotas/topic/slow", {})[0] == 400
    assert ask(server, "POST", "/v1/quotas/queue/slow", {})[0] == 405


def test_a_full_queue_takes_messages_again_when_some_are_confirmed(server: Server) -> None:
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        queue = client.queue("full")
        client.admin("quota.set", scope="queue", name="full", quota={"messages": 3})

        def refused() -> bool:
            try:
                queue.send(b"m")
            except penstock.ThrottledError:
                return True
            return False

        until(refused)
        for message in queue.receive(1000):
            message.confirm()
        until(lambda: not refused())
        shown = client.show("full")
        assert shown["next"] - shown["floor"] <= 3


def test_a_group_leases_no_more_than_its_quota(server: Server) -> None:
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        queue, path = client.queue("leased"), "/v1/queues/leased/receive"
        queue.send_many([b"m"] * 10)
        client.admin("quota.set", scope="queue", name="leased", quota={"in_flight": 4})

        def bound() -> bool:
            try:
                probe = queue.receive(10)
            except penstock.ThrottledError:
                return False
            client.release(probe)
            return len(probe) == 4

        def bound_elsewhere() -> bool:
            # Each connection may be another worker's.
            _, answer, _ = ask(server, "POST", path, {"max_messages": 10})
            receipts = [one["receipt"] for one in answer.get("messages", [])]
            if receipts:
                ask(server, "POST", "/v1/queues/leased/release", {"receipts": receipts})
            return len(receipts) == 4

        until(bound)
        until(lambda: all(bound_elsewhere() for _ in range(16)))
        got = queue.receive(10)
        assert len(got) == 4
        with pytest.raises(penstock.ThrottledError):
            queue.receive(10)
        answer = ask(server, "POST", path, {"max_messages": 10})
        assert answer[0] == 429, answer
        got[0].confirm()
        [one] = ask(server, "POST", path, {"max_messages": 10, "wait_ms": 2000})[1]["messages"]
        assert one["offset"] == 4
        began = time.monotonic()
        got[1].confirm()
        assert [m.offset for m in queue.receive(10, wait=5)] == [5]
        assert time.monotonic() - began < 3


def test_a_rate_of_receiving_is_kept_by_those_who_wait(server: Server) -> None:
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        queue = client.queue("sipped")
        queue.send_many([b"m"] * 1000)
        quota = {"receives_per_s": 20, "burst_s": 0.1}
        client.admin("quota.set", scope="queue", name="sipped", quota=quota)
        with Wire(server.tcp) as wire:
            number = wire.open("sipped")
            until(lambda: wire.call(5, receive_payload(number, count=1))[0] == 13)
            # The client's connection may be another worker's.
            time.sleep(1)
        began, got = time.monotonic(), 0
        while time.monotonic() - began < 1.5:
            got += len(queue.receive(1, wait=1))
        assert 10 <= got <= 50


def test_the_command_line_sets_and_shows(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    from penstock.server import cli

    where = ["--server", f"127.0.0.1:{server.tcp}", "-o", "json"]
    words = ["quota", "set", "namespace", "team", "--messages", "5", "--messages-per-s", "2.5"]
    assert cli.main([*words, *where]) == 0
    assert cli.main(["quota", "show", "namespace", "team", *where]) == 0
    shown = capsys.readouterr().out.split("]\n[")
    assert {"messages": 5, "messages_per_s": 2.5}.items() <= json.loads(shown[0] + "]")[0].items()
    assert cli.main(["quota", "remove", "namespace", "team", *where]) == 0
    assert cli.main(["quota", "show", "namespace", "team", *where]) == cli.EXIT_NOT_FOUND
    assert cli.main(["quota", "list", *where]) == 0
