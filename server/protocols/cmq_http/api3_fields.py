"""What requests of API 3.0 say, in JSON, as a form or in the target, as the actions read it."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from penstock.server._wire import HttpRequest
from penstock.server.broker.cmq.faults import CmqError, Fault
from penstock.server.protocols.cmq_http.form import Form, pairs_of

Fields = dict[str, Any]
T = TypeVar("T")
LISTED, LIST_LIMIT = 20, 50
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
# v2 knows no such parameter, and API 3.0 has it in each form.
VERSIONED = re.compile(rb"(?:^|&)Version=[0-9]{4}-[0-9]{2}-[0-9]{2}(?:&|$)")


class Spelled(dict[str, Any]):
    """Fields of a form, where numbers are text."""


class Listing(msgspec.Struct):
    """Which of many are asked for."""

    Offset: int = 0
    Limit: int = LISTED

    def page(self, found: list[T], told: Callable[[T], Fields], many: str) -> Fields:
        """TotalCount, and under the name many what is told of those on the page."""
        if self.Offset < 0 or not 1 <= self.Limit <= LIST_LIMIT:
            raise CmqError(
                Fault.OUT_OF_RANGE, f"Offset is 0 and more, Limit 1 to {LIST_LIMIT}")
        rows = []
        for one in found[self.Offset:self.Offset + self.Limit]:
            try:
                rows.append(told(one))
            except CmqError as error:
                # Deleted this moment.
                if error.fault not in (Fault.NO_QUEUE, Fault.NO_TOPIC):
                    raise
        return {"TotalCount": len(found), many: rows}


def asks_api3(request: HttpRequest) -> bool:
    """Whether a request is one of API 3.0: its head says an action, or its form a version."""
    if b"x-tc-action" in request.given:
        return True
    where = request.body or request.url.partition(b"?")[2]
    return b"Version=" in where and VERSIONED.search(where) is not None


def fields_of(request: HttpRequest, kind: str) -> Fields:
    """The fields of a request whose head says the action; kind: the type of its body."""
    if request.method == b"GET":
        return form_fields(Form(pairs_of(request.url.partition(b"?")[2])))
    kind = kind.partition(";")[0].strip().lower()
    if kind == FORM:
        return form_fields(Form(pairs_of(request.body)))
    if kind not in ("", JSON):
        raise CmqError(Fault.UNREADABLE, f"a body is {JSON} or {FORM}")
    try:
        fields = msgspec.json.decode(request.body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CmqError(Fault.UNREADABLE, str(error)) from error
    if not isinstance(fields, dict):
        raise CmqError(Fault.UNREADABLE, "the body is a JSON object")
    return fields


def form_fields(form: Form) -> Fields:
    """The values by their names, and the lists that are numbered."""
    return Spelled({**form.values, **{name: form.list(name) for name in form.arrays}})


def read(fields: Mapping[str, Any], model: type[T]) -> T:
    """The fields as the model has them; what is unknown is passed over."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return msgspec.convert(given, model, strict=not isinstance(fields, Spelled))
    except msgspec.ValidationError as error:
        missing = "missing required field" in str(error)
        raise CmqError(Fault.MISSING_ONE if missing else Fault.WRONG_TYPE, str(error)) from error
