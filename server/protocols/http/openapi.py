"""The OpenAPI 3.1 document, made from the definitions that decode the requests."""

from typing import Any

import msgspec

from penstock.server.protocols.http import models
from penstock.server.protocols.http.problem import Problem

QUEUE = "/v1/queues/{queue}"
# target, method, what it does, request, reply, status
OPERATIONS: tuple[tuple[str, str, str, Any, Any, int], ...] = (
    ("/v1/queues", "get", "List the queues", None, models.QueuesReply, 200),
    (QUEUE, "get", "Show a queue", None, models.QueueReply, 200),
    (QUEUE, "put", "Create a queue", None, models.QueueReply, 201),
    (QUEUE, "delete", "Delete a queue", None, None, 204),
    (f"{QUEUE}/messages", "post", "Send", models.SendRequest, models.SendReply, 201),
    (f"{QUEUE}/receive", "post", "Receive", models.ReceiveRequest, models.MessagesReply, 200),
    (f"{QUEUE}/confirm", "post", "Confirm", models.ConfirmRequest, models.VerdictsReply, 200),
    (f"{QUEUE}/release", "post", "Release", models.ReleaseRequest, models.VerdictsReply, 200),
    (f"{QUEUE}/extend", "post", "Extend a lease", models.ExtendRequest, models.VerdictsReply, 200),
    (f"{QUEUE}/rewind", "post", "Rewind", models.RewindRequest, models.RewindReply, 200),
    (f"{QUEUE}/peek", "get", "Read, take nothing", None, models.MessagesReply, 200),
)
RAW = ("application/octet-stream", "application/x-ndjson", "application/vnd.penstock.batch")
NAME = {
    "type": "string",
    "pattern": "^([A-Za-z0-9_-][A-Za-z0-9._-]*/)?[A-Za-z0-9._-]+$",
    "maxLength": 128,
}


def document() -> bytes:
    """The whole document as JSON."""
    used = [model for _, _, _, *pair, _ in OPERATIONS for model in pair if model is not None]
    template = "#/components/schemas/{name}"
    _, schemas = msgspec.json.schema_components([*used, Problem], ref_template=template)
    paths: dict[str, dict[str, Any]] = {}
    for path, method, summary, request, answer, status in OPERATIONS:
        paths.setdefault(path, {})[method] = operation(path, summary, request, answer, status)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Penstock", "version": "1"},
            "paths": paths,
            "components": {"schemas": schemas},
        }
    )


def operation(path: str, summary: str, request: Any, answer: Any, status: int) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(status): {"description": "done", **content("application/json", answer)},
        "default": {"description": "refused", **content("application/problem+json", Problem)},
    }
    made: dict[str, Any] = {"summary": summary, "responses": responses}
    if "{queue}" in path:
        made["parameters"] = [{"name": "queue", "in": "path", "required": True, "schema": NAME}]
    if path.endswith("/peek"):
        made["parameters"] += [
            {"name": name, "in": "query", "schema": {"type": "integer", "minimum": 0}}
            for name in ("offset", "max")
        ]
    if request is not None:
        made["requestBody"] = content("application/json", request)
        if request is models.SendRequest:
            made["requestBody"]["content"].update({kind: {} for kind in RAW})
    return made


def content(kind: str, model: Any) -> dict[str, Any]:
    if model is None:
        return {}
    return {"content": {kind: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}}
