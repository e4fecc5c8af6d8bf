"""The OpenAPI document says what the HTTP door takes: each target and method, and no other."""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.engine import Store
from penstock.server.bridge import Bridge
from penstock.server.broker.broker import Broker
from penstock.server.broker.limits import Limits
from penstock.server.protocols.http.door import HttpDoor
from penstock.server.protocols.http.openapi import document

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server
from test_http_door import OCTETS, ask

SAID: dict[str, dict[str, Any]] = json.loads(document())["paths"]
METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH")
NAMES = {
    "queue": "orders", "topic": "news", "group": "g", "scope": "queue", "name": "orders",
    "schedule": "nightly", "id": "00000001-p000000000000048",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store")) as running:
        yield running


def taken(door: HttpDoor) -> Iterator[tuple[str, str]]:
    """Each target and method that the door's tables have a handler for."""
    for root, one, tables in (
        ("/v1/queues", "queue", door.queues.verbs), ("/v1/topics", "topic", door.topics.verbs),
    ):
        for verb, handlers in tables.items():
            last = "/{}" if verb in ("groups", "offsets", "members", "subscriptions") else ""
            path = {"list": root, one: f"{root}/{{}}"}.get(verb, f"{root}/{{}}/{verb}{last}")
            yield from ((path, method) for method in handlers)
    for target, awaiting in door.waiting.verbs.items():
        yield from ((f"/v1/{target}".replace("ID", "{}"), method) for method in awaiting)
    yield from ((path, "GET") for path in door.observer.paths)


# Those that the door takes apart by itself.
BESIDE = {
    ("/v1/lag", "GET"), ("/v1/push", "GET"), ("/v1/push/{}", "PUT"), ("/v1/push/{}", "DELETE"),
    ("/v1/quotas", "GET"), *(("/v1/quotas/{}/{}", method) for method in ("GET", "PUT", "DELETE")),
}  # fmt: skip


def test_every_target_and_method_is_said_and_no_other(tmp_path: Path) -> None:
    async def found() -> set[tuple[str, str]]:
        with Store.open(tmp_path) as store:
            bridge = Bridge(asyncio.get_running_loop())
            door = HttpDoor(Broker(store, Limits()), bridge, "disk")
            bridge.close()
            return {*taken(door), *BESIDE}

    said = {
        (re.sub(r"\{\w+\}", "{}", path), method.upper())
        for path, methods in SAID.items() for method in methods
    }
    assert said == asyncio.run(found())


@pytest.mark.parametrize("path", SAID)
def test_a_target_takes_what_is_said_and_names_it_to_who_asks_otherwise(
    server: Server, path: str
) -> None:
    said = {method.upper() for method in SAID[path]}
    for method in sorted(METHODS):
        body = {"wait_ms": 0} if method == "POST" else None
        status, answer, fields = ask(server, method, path.format(**NAMES), body)
        if method not in said:
            assert status == 405, method
            assert {*fields["Allow"].split(", ")} - {"HEAD"} == said
        elif status >= 400:
            assert fields["Content-Type"] == "application/problem+json", answer
            assert status not in (405, 500) and "nothing at this target" not in answer["detail"]
        else:
            assert str(status) in SAID[path][method.lower()]["responses"], method


def test_operations_and_parameters_have_names_of_their_own() -> None:
    operations = [one for methods in SAID.values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    for path, methods in SAID.items():
        for one in methods.values():
            named = [(at["in"], at["name"]) for at in one.get("parameters", [])]
            assert len(set(named)) == len(named), path
            assert {name for place, name in named if place == "path"} == {
                *re.findall(r"\{(\w+)\}", path)
            }


def test_what_is_said_of_queries_and_header_fields_is_taken(server: Server) -> None:
    queue = "/v1/queues/said"
    ask(server, "PUT", queue)
    for at in SAID["/v1/queues/{queue}/messages"]["post"]["parameters"]:
        value = {"integer": "1", "string": "disk"}[at["schema"]["type"]]
        if at["in"] == "header" and at["name"].startswith(("Penstock-First", "Penstock-Check")):
            continue        # only with a half
        head = {at["name"]: value} if at["in"] == "header" else {}
        query = f"?{at['name']}={value}" if at["in"] == "query" else ""
        if at["name"] == "Penstock-Producer-Group":
            head["Penstock-Half"] = "1"
        status, answer, _ = ask(
            server, "POST", f"{queue}/messages{query}", b"x", **OCTETS, **head)
        assert status == 201, (at["name"], answer)
    status, body, fields = ask(
        server, "POST", f"{queue}/receive", b"{}", Accept="application/octet-stream")
    assert (status, body) == (200, b"x") and fields["Content-Type"] == "application/octet-stream"
    ask(server, "PUT", "/v1/queues/none-there")
    none = ask(server, "POST", "/v1/queues/none-there/receive", b"{}",
               Accept="application/octet-stream")
    assert none[:2] == (204, b"")
