"""Requests and replies, and the temporary queues that the replies go to."""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock.engine import Store
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.limits import Limits
from penstock.server.broker.temporary import PREFIX, Noted, Temporary

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server, Wire

SECOND = 1_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store")) as running:
        yield running


def serve(server: Server, name: str, count: int) -> threading.Thread:
    """A thread that replies to count requests with what they said in capitals."""

    def work() -> None:
        with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
            left = count
            while left:
                for message in client.queue(name).receive(10, wait=5):
                    message.reply(message.body.upper(), tag="done")
                    message.confirm()
                    left -= 1

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_request_gets_its_own_reply_also_beside_others(server: Server) -> None:
    worker = serve(server, "capitals", 41)
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        reply = client.request("capitals", b"hello", timeout=10)
        assert (reply.body, reply.tag) == (b"HELLO", "done")
        found: list[tuple[bytes, bytes]] = []

        def ask(word: bytes) -> None:
            found.append((word, client.request("capitals", word, timeout=10).body))

        askers = [threading.Thread(target=ask, args=(b"w%d" % n,)) for n in range(40)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert len(found) == 40 and all(word.upper() == body for word, body in found)
        own = [name for name in client.list()["queues"] if name.startswith("reply.")]
        assert len(own) == 1
    worker.join()
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        assert not [name for name in client.list()["queues"] if name.startswith("reply.")]


def test_the_asyncio_client_asks_and_replies(server: Server) -> None:
    async def main() -> None:
        address = f"127.0.0.1:{server.tcp}"
        async with penstock.AsyncClient(address) as client, penstock.AsyncClient(address) as other:

            async def answer(message: penstock.AsyncMessage) -> None:
                await message.reply(message.body[::-1])

            requests = await client.queue("reverse")
            consumption = (await other.queue("reverse")).consume(answer)
            server_task = asyncio.ensure_future(_consume(consumption))
            words = [b"w%d" % n for n in range(30)]
            asked = [client.request(requests, word, timeout=10) for word in words]
            replies = await asyncio.gather(*asked)
            assert [reply.body for reply in replies] == [word[::-1] for word in words]
            server_task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await server_task
            with pytest.raises(penstock.TimeoutError, match="no reply to request reverse/30"):
                await client.request("reverse", b"x", timeout=0.2)
            listed = (await client.list())["queues"]
            assert [name for name in listed if name.startswith("reply.")]
        async with penstock.AsyncClient(address) as client:
            listed = (await client.list())["queues"]
            assert not [name for name in listed if name.startswith("reply.")]

    async def _consume(consumption: object) -> None:
        await consumption  # type: ignore[misc]

    asyncio.run(main())


def test_a_request_that_is_late_says_what_became_of_it(server: Server) -> None:
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        with pytest.raises(penstock.TimeoutError, match="slow/0 in 0.2 s: nobody has received"):
            client.request("slow", b"one", timeout=0.2)
        [message] = client.queue("slow").receive()
        with pytest.raises(penstock.TimeoutError, match="slow/1"):
            client.request("slow", b"two", timeout=0.2)
        message.reply(b"too late")
        message.confirm()
        [message] = client.queue("slow").receive()
        worker = threading.Timer(0.1, lambda: (message.reply(b"three"), message.confirm()))
        with pytest.raises(penstock.TimeoutError, match="slow/2"):
            worker.start()
            # The replies to those that gave up are nobody's, and not taken for this one's.
            client.request("slow", b"three", timeout=0.5)
        worker.join()


def test_a_reply_needs_an_address_and_somebody_who_waits(server: Server) -> None:
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        queue = client.queue("address")
        queue.send(b"no request")
        queue.send(b"gone", reply_to="reply.gone", correlation="c")
        first, second = queue.receive(2)
        with pytest.raises(penstock.InvalidError):
            first.reply(b"x")
        with pytest.raises(penstock.QueueNotFoundError):
            second.reply(b"x")


def test_a_client_forgets_the_addresses_of_those_it_replied_to_long_ago(server: Server) -> None:
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        queue = client.queue("many")
        for number in range(300):
            client.queue(f"address.{number}")
            queue.send(b"", durability="kernel", reply_to=f"address.{number}", correlation="c")
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        for message in client.queue("many").receive(300, wait=5):
            message.reply(b"", durability="kernel")
        assert len(client.replies.addresses.known) == 256
        assert len(client._session._handles) == 257


def test_the_doors_make_temporary_queues(server: Server) -> None:
    from test_http_door import ask

    assert ask(server, "PUT", "/v1/queues/brief?idle_ms=60000")[0] == 200
    assert ask(server, "PUT", "/v1/queues/brief?idle_ms=0")[0] == 400
    assert ask(server, "PUT", "/v1/queues/brief?idle_ms=99999999999")[0] == 400
    assert ask(server, "PUT", "/v1/queues/lasting")[0] == 201
    assert ask(server, "PUT", "/v1/queues/lasting?idle_ms=60000")[0] == 409
    with Wire(server.tcp) as wire:
        assert wire.call(2, b"\x03\0\0\0" + (60000).to_bytes(4, "little") + b"brief")[0] == 0
        assert wire.call(2, b"\x03\0\0\0" + (60000).to_bytes(4, "little") + b"lasting")[0] == 4
        assert wire.call(2, b"\x02\0\0\0" + (60000).to_bytes(4, "little") + b"brief")[0] == 9
        assert wire.call(2, b"\x03\0\0\0" + bytes(4) + b"brief")[0] == 9
        assert wire.call(2, b"\x01\0\0\0" + (1000).to_bytes(4, "little") + b"swept")[0] == 9
        assert wire.call(2, b"\x03\0\0\0" + (1000).to_bytes(4, "little") + b"swept")[0] == 0
    deadline = threading.Event()
    for _ in range(100):
        if ask(server, "GET", "/v1/queues/swept")[0] == 404:
            break
        deadline.wait(0.1)
    else:
        pytest.fail("the queue was not removed")


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Temporary]:
    with Store.open(tmp_path / "s", segment_size=1 << 20) as store:
        yield Temporary(Broker(store, Limits()))


def test_a_temporary_queue_lives_from_request_to_request(temporary: Temporary) -> None:
    first = temporary.open("t", 10_000, 0)
    assert temporary.open("t", 10_000, 8 * SECOND).id == first.id
    assert temporary.sweep(17 * SECOND) == []
    assert temporary.sweep(18 * SECOND) == ["t"]
    assert temporary.store.queues() == [] and temporary.store.notes(PREFIX) == {}
    assert temporary.sweep(99 * SECOND) == []
    assert temporary.open("t", 10_000, 100 * SECOND).id != first.id


def test_a_temporary_queue_outlives_the_server_by_its_idle_time(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", segment_size=1 << 20) as store:
        Temporary(Broker(store, Limits())).open("t", 10_000, 0)
    with Store.open(tmp_path / "s") as store:
        assert Temporary(Broker(store, Limits())).sweep(9 * SECOND) == []
        assert Temporary(Broker(store, Limits())).sweep(11 * SECOND) == ["t"]


def test_a_lasting_queue_of_the_same_name_is_never_swept(temporary: Temporary) -> None:
    temporary.store.queue("lasting")
    with pytest.raises(BrokerError) as refused:
        temporary.open("lasting", 1000, 0)
    assert refused.value.kind is Kind.EXISTS
    temporary.open("t", 1000, 0)
    temporary.store.delete("t")
    temporary.store.queue("t")
    temporary.sweep(60 * SECOND)
    assert sorted(temporary.store.queues()) == ["lasting", "t"]
    assert temporary.store.notes(PREFIX) == {}


@pytest.mark.parametrize("made", [False, True])
def test_a_sweep_or_an_opening_that_was_cut_off_is_finished_later(
    temporary: Temporary, made: bool
) -> None:
    store = temporary.store
    store.note(PREFIX + "half", Noted(0, 1000, 0).pack())
    if made:
        store.queue("half")
    queue = temporary.open("kept", 1000, 0)
    store.note(PREFIX + "kept", Noted(queue.id, 1000, 0, True).pack())
    with pytest.raises(BrokerError) as refused:
        temporary.open("kept", 1000, 0)
    assert refused.value.kind is Kind.BUSY and refused.value.retry_after_ms
    assert temporary.sweep(SECOND // 2) == ["kept"]
    assert temporary.sweep(2 * SECOND) == ["half"]
    assert store.queues() == [] and store.notes(PREFIX) == {}


def test_one_that_is_asked_for_during_the_sweep_stays(temporary: Temporary) -> None:
    queue = temporary.open("t", 1000, 0)
    store, read = temporary.store, Noted.read

    class Asked:
        """The store, in which somebody asks for the queue between the sweep's look and its deed."""

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def noted(self, name: str) -> object:
            found = store.noted(name)
            Temporary(temporary.broker).open("t", 1000, 9 * SECOND)
            return found

    temporary.store = Asked()  # type: ignore[assignment]
    assert temporary.sweep(5 * SECOND) == []
    assert store.queues() == ["t"] and store.queue("t").id == queue.id
    found = store.noted(PREFIX + "t")
    assert found is not None and read(found[0]).seen_us == 9 * SECOND
    assert json.loads(found[0])["gone"] is False
