"""The OpenAPI 3.1 document, made from the definitions that decode the requests."""

from typing import Any

import msgspec

from penstock.server.broker import asks
from penstock.server.broker.cron import Plan
from penstock.server.broker.push import Subscription
from penstock.server.broker.throttle import Quota
from penstock.server.protocols.http import models, topics, waiting
from penstock.server.protocols.http.parameters import HEADERS, NUMBERED, queries
from penstock.server.protocols.http.problem import Problem

QUEUE = "/v1/queues/{queue}"
TOPIC = "/v1/topics/{topic}"
PENDING = "/v1/pending/{id}"
SCHEDULE = "/v1/schedules/{schedule}"
PUSH = "/v1/push/{name}"
QUOTA = "/v1/quotas/{scope}/{name}"
# target, method, what it does, request, reply, status
OPERATIONS: tuple[tuple[str, str, str, Any, Any, int], ...] = (
    ("/v1/queues", "get", "List the queues", asks.Listing, models.QueuesReply, 200),
    (QUEUE, "get", "Show a queue", None, models.QueueReply, 200),
    (QUEUE, "put", "Create a queue", None, models.QueueReply, 201),
    (QUEUE, "delete", "Delete a queue", None, None, 204),
    (f"{QUEUE}/messages", "delete", "Purge", None, dict, 200),
    (f"{QUEUE}/messages", "post", "Send", models.SendRequest, models.SendReply, 201),
    (f"{QUEUE}/receive", "post", "Receive", models.ReceiveRequest, models.MessagesReply, 200),
    (f"{QUEUE}/confirm", "post", "Confirm", models.ConfirmRequest, models.VerdictsReply, 200),
    (f"{QUEUE}/release", "post", "Release", models.ReleaseRequest, models.VerdictsReply, 200),
    (f"{QUEUE}/extend", "post", "Extend a lease", models.ExtendRequest, models.VerdictsReply, 200),
    (f"{QUEUE}/rewind", "post", "Rewind, or try it", asks.Rewind, dict, 200),
    ("/v1/push", "get", "List the push subscriptions", None, dict, 200),
    (PUSH, "put", "Push a queue to a URL", Subscription, None, 204),
    (PUSH, "delete", "Push no more", None, None, 204),
    ("/v1/quotas", "get", "List the quotas", None, models.QuotasReply, 200),
    (QUOTA, "get", "Show a quota", None, Quota, 200),
    (QUOTA, "put", "Set a quota", Quota, Quota, 200),
    (QUOTA, "delete", "Remove a quota", None, None, 204),
    (f"{QUEUE}/groups/{{group}}", "get", "What is set for a group", None, dict, 200),
    (f"{QUEUE}/groups/{{group}}", "put", "Give a group its filter, order, retries", asks.Group,
     dict, 200),
    (f"{QUEUE}/groups/{{group}}", "delete", "Remove a group", None, dict, 200),
    (f"{QUEUE}/offsets/{{group}}", "get", "The stored offset of a group", None, dict, 200),
    (f"{QUEUE}/offsets/{{group}}", "put", "Store an offset", asks.OffsetCommit, dict, 200),
    (f"{QUEUE}/members/{{group}}", "get", "The members of a group", None, dict, 200),
    (f"{QUEUE}/members/{{group}}", "put", "Be a member that gets everything", asks.MemberJoin, dict,
     200),
    (f"{QUEUE}/members/{{group}}", "delete", "Be a member no more", asks.Member, dict, 200),
    (f"{QUEUE}/settings", "get", "What is set for a queue", None, dict, 200),
    (f"{QUEUE}/settings", "put", "Set what is kept, and what is stored once", asks.QueueSettings,
     dict, 200),
    (f"{QUEUE}/unpurge", "post", "Take purges back that are still kept", None, dict, 200),
    (f"{QUEUE}/redrive", "post", "Put dead letters back", asks.Redrive, dict, 200),
    (f"{QUEUE}/peek", "get", "Read, take nothing", None, models.MessagesReply, 200),
    (f"{QUEUE}/messages", "get", "Find messages", asks.Find, dict, 200),
    (f"{QUEUE}/explain", "get", "Why a message is not delivered", asks.Message, dict, 200),
    (f"{QUEUE}/trace", "get", "What the log says of a message", asks.Trace, dict, 200),
    (f"{QUEUE}/lag", "get", "How far its groups are behind", asks.Lag, dict, 200),
    ("/v1/topics", "get", "List the topics", asks.Listing, topics.TopicsReply, 200),
    (TOPIC, "get", "Show a topic", None, topics.TopicReply, 200),
    (TOPIC, "put", "Create a topic, or let it grow", None, topics.TopicReply, 201),
    (TOPIC, "delete", "Delete a topic", None, None, 204),
    (f"{TOPIC}/messages", "post", "Publish", models.SendRequest, topics.PublishReply, 201),
    (f"{TOPIC}/receive", "post", "Receive as a group", models.ReceiveRequest, topics.TopicMessages,
     200),
    (f"{TOPIC}/confirm", "post", "Confirm", models.ConfirmRequest, models.VerdictsReply, 200),
    (f"{TOPIC}/release", "post", "Release", models.ReleaseRequest, models.VerdictsReply, 200),
    (f"{TOPIC}/subscriptions/{{queue}}", "put", "Let a queue get what a filter wants",
     topics.SubscribeRequest, topics.Subscription, 201),
    (f"{TOPIC}/subscriptions/{{queue}}", "delete", "Let it get no more", None, None, 204),
    (f"{TOPIC}/settings", "get", "What is set for a topic", None, dict, 200),
    (f"{TOPIC}/settings", "put", "Set what its partitions keep, and store once",
     asks.QueueSettings, dict, 200),
    (f"{TOPIC}/groups/{{group}}", "get", "What is set for a group of all partitions", None, dict,
     200),
    (f"{TOPIC}/groups/{{group}}", "put", "Give a group its filter, order, retries", asks.Group,
     dict, 200),
    ("/v1/pending", "get", "What waits, by when it comes", asks.Waiting, dict, 200),
    (PENDING, "get", "Show a message that waits", None, dict, 200),
    (PENDING, "patch", "Let it come at another time", waiting.MoveRequest, dict, 200),
    (PENDING, "delete", "Cancel it", None, dict, 200),
    (f"{PENDING}/commit", "post", "Commit a half", None, models.SendReply, 200),
    (f"{PENDING}/rollback", "post", "Roll a half back", None, waiting.RollbackReply, 200),
    ("/v1/checks", "post", "Be asked what became of halves", waiting.ChecksRequest, dict, 200),
    ("/v1/atomic", "post", "Send to several queues, to all or none", waiting.AtomicRequest,
     waiting.AtomicReply, 201),
    ("/v1/schedules", "get", "List the schedules", None, dict, 200),
    (SCHEDULE, "get", "Show a schedule and its next firings", None, dict, 200),
    (SCHEDULE, "put", "Send a message whenever a cron expression says so", Plan, dict, 200),
    (SCHEDULE, "delete", "Fire no more", None, None, 204),
    (f"{SCHEDULE}/pause", "post", "Pause a schedule", None, dict, 200),
    (f"{SCHEDULE}/resume", "post", "Go on from now", None, dict, 200),
    ("/v1/lag", "get", "How far all groups are behind", asks.Lag, dict, 200),
    ("/livez", "get", "Whether the process lives", None, str, 200),
    ("/readyz", "get", "Whether it takes requests", None, str, 200),
    ("/metrics", "get", "What Prometheus scrapes", None, str, 200),
    ("/openapi.json", "get", "This document", None, dict, 200),
)
QUERIES = queries(QUEUE, TOPIC, PENDING)
Named = dict[Any, dict[str, Any]]     # how a model is referred to
RAW = ("application/octet-stream", "application/x-ndjson", "application/vnd.penstock.batch")
NAME = {
    "type": "string",
    "pattern": r"^([A-Za-z0-9_-][A-Za-z0-9._-]*/)?(?!\.+$)[A-Za-z0-9._-]+$",
    "maxLength": 128,
}


def document() -> bytes:
    """The whole document as JSON."""
    pairs = [model for _, _, _, *pair, _ in OPERATIONS for model in pair]
    used = [model for model in pairs if model not in (None, dict, str)]
    used.append(Problem)
    # Two may have one name, each in its own room: the references tell them apart.
    said, schemas = msgspec.json.schema_components(
        used, ref_template="#/components/schemas/{name}")
    named = dict(zip(used, said, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for path, method, summary, request, answer, status in OPERATIONS:
        paths.setdefault(path, {})[method] = operation(
            path, method, summary, request, answer, status, named)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Penstock", "version": "1"},
            "paths": paths,
            "components": {"schemas": schemas},
        }
    )


def operation(
    path: str, method: str, summary: str, request: Any, answer: Any, status: int, named: Named
) -> dict[str, Any]:
    kind = "text/plain" if answer is str else "application/json"
    responses: dict[str, Any] = {
        str(status): {"description": "done", **content(kind, answer, named)},
        "default": {
            "description": "refused", **content("application/problem+json", Problem, named)
        },
    }
    if method == "put" and status == 201:
        responses["200"] = {**responses["201"], "description": "it was there"}
    made: dict[str, Any] = {
        "operationId": operation_id(method, path), "summary": summary, "responses": responses,
    }
    if "{queue}" in path:
        made["parameters"] = [{"name": "queue", "in": "path", "required": True, "schema": NAME}]
    if "{topic}" in path:
        topic = {"name": "topic", "in": "path", "required": True, "schema": NAME}
        made["parameters"] = [topic, *made.get("parameters", [])]
    if path == PUSH:
        made["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": NAME}]
    if "{schedule}" in path:
        made["parameters"] = [{"name": "schedule", "in": "path", "required": True, "schema": NAME}]
    if "{id}" in path:
        waits = {"type": "string", "pattern": "^[0-9a-f]{8}-p[0-9a-f]{15}$"}
        made["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": waits}]
    if "{scope}" in path:
        scope = {"type": "string", "enum": ["queue", "namespace", "key"]}
        made["parameters"] = [
            {"name": "scope", "in": "path", "required": True, "schema": scope},
            {"name": "name", "in": "path", "required": True, "schema": NAME},
        ]
    if "{group}" in path:
        schema = {"type": "string", "maxLength": 128}
        made["parameters"].append(
            {"name": "group", "in": "path", "required": True, "schema": schema})
    beside = (*QUERIES.get((path, method), ()), *(HEADERS if request is models.SendRequest else ()),
              *(NUMBERED if request is waiting.AtomicRequest else ()))
    if beside:
        made["parameters"] = [*made.get("parameters", []), *beside]
    if path == f"{QUEUE}/receive":
        responses["200"]["content"]["application/octet-stream"] = {}
        responses["204"] = {"description": "no message, asked for as octets"}
    if request is not None and request.__module__ == asks.__name__ and method == "get":
        made["parameters"] = made.get("parameters", []) + asked(request)
    elif request is not None:
        made["requestBody"] = content("application/json", request, named)
        if is_needed(request):
            made["requestBody"]["required"] = True
        if request is models.SendRequest:
            made["requestBody"]["content"].update({kind: {} for kind in RAW})
    return made


def operation_id(method: str, path: str) -> str:
    """What generators name a function: get_queues_queue_peek for /v1/queues/{queue}/peek."""
    parts = path.removeprefix("/v1/").strip("/").split("/")
    return "_".join([method, *(part.strip("{}").partition(".")[0] for part in parts)])


def asked(model: Any) -> list[dict[str, Any]]:
    """The fields of a question as parameters of its query; properties as property.NAME."""
    _, schemas = msgspec.json.schema_components([model], ref_template="{name}")
    fields = schemas[model.__name__]["properties"]
    return [
        {"name": name, "in": "query", "schema": schema, "style": "form"}
        for name, schema in fields.items()
        if name != "properties" and (name != "queue" or model is asks.Waiting)
    ]


def is_needed(model: Any) -> bool:
    """Whether a body must be there: something in it has no default."""
    return model is not dict and any(
        field.required for field in msgspec.structs.fields(model)
        if field.name not in ("queue", "group"))


def content(kind: str, model: Any, named: Named) -> dict[str, Any]:
    if model is None:
        return {}
    plain = {dict: {"type": "object"}, str: {"type": "string"}}
    schema = plain[model] if model in plain else named[model]
    return {"content": {kind: {"schema": schema}}}
