"""A purge is taken back through every door, and what cannot be is refused by name."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import AsyncClient, Client, InvalidError, QueueNotFoundError
from penstock.server import cli

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server
from test_http_door import ask

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(f"127.0.0.1:{server.tcp}") as client:
        queue = client.queue("red")
        for at in range(3):
            queue.send(b"%d" % at)
        yield client
        client.delete("red")


def test_a_client_takes_a_purge_back(client: Client) -> None:
    assert client.purge("red", keep_ms=HOUR_MS)["purged"] == 3
    assert client.unpurge("red") == {"offset": 0, "count": 3}
    assert client.purge("red")["purged"] == 3
    with pytest.raises(InvalidError, match="no purge"):
        client.unpurge("red")
    with pytest.raises(InvalidError, match="keep_ms"):
        client.purge("red", keep_ms=-1)
    with pytest.raises(QueueNotFoundError):
        client.unpurge("nowhere")


def test_the_asyncio_client_does_the_same(server: Server, client: Client) -> None:
    async def work() -> None:
        async with AsyncClient(f"127.0.0.1:{server.tcp}") as other:
            await other.purge("red", keep_ms=HOUR_MS)
            assert await other.unpurge("red") == {"offset": 0, "count": 3}

    asyncio.run(work())


def test_it_is_taken_back_over_http(server: Server, client: Client) -> None:
    assert ask(server, "DELETE", f"/v1/queues/red/messages?keep_ms={HOUR_MS}")[1] == {"purged": 3}
    assert ask(server, "POST", "/v1/queues/red/unpurge")[:2] == (200, {"offset": 0, "count": 3})
    status, told, _ = ask(server, "POST", "/v1/queues/red/unpurge")
    assert status == 400 and "no purge" in str(told)
    assert ask(server, "DELETE", "/v1/queues/red/messages?keep_ms=x")[0] == 400
    assert ask(server, "POST", "/v1/queues/nowhere/unpurge")[0] == 404


def test_it_is_taken_back_from_the_command_line(server: Server, client: Client) -> None:
    to = ["--server", f"127.0.0.1:{server.tcp}"]
    assert cli.main(["queue", "purge", "red", "--keep-ms", str(HOUR_MS), *to]) == 0
    assert cli.main(["queue", "unpurge", "red", *to]) == 0
    assert cli.main(["queue", "unpurge", "red", *to]) != 0
