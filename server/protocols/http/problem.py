"""RFC 9457 problems: the broker's refusals as HTTP statuses and JSON."""

from collections.abc import Iterable
from http import HTTPStatus

import msgspec

from penstock.server.broker.errors import BrokerError, Kind

Response = tuple[int, bytes, bytes]

STATUSES: dict[Kind, int] = {
    Kind.MALFORMED: 400,
    Kind.UNKNOWN: 404,
    Kind.NOT_FOUND: 404,
    Kind.EXISTS: 409,
    Kind.TOO_LARGE: 413,
    Kind.STORE_FULL: 507,
    Kind.POISONED: 500,
    Kind.BUSY: 503,
    Kind.INVALID: 400,
    Kind.SHUTTING_DOWN: 503,
    Kind.INTERNAL: 500,
    Kind.CORRUPT: 500,
    Kind.THROTTLED: 429,
}
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
JSON = b"Content-Type: application/json\r\n"
PROBLEM = b"Content-Type: application/problem+json\r\n"


class Problem(msgspec.Struct, omit_defaults=True):
    """What went wrong. type is stable; title says it in two words, detail in a sentence."""

    type: str
    title: str
    status: int
    detail: str
    limit: int | None = None
    retry_after_ms: int | None = None


def problem(error: BrokerError, status: int | None = None) -> Response:
    """The reply to a refused request."""
    return render(
        status or STATUSES[error.kind], error.kind, error.text, error.limit, error.retry_after_ms
    )


def render(
    status: int, kind: Kind, text: str, limit: int | None = None, retry_after_ms: int = 0
) -> Response:
    body = Problem(
        f"urn:penstock:problem:{kind.value}",
        kind.value.replace("-", " "),
        status,
        text,
        limit,
        retry_after_ms or None,
    )
    head = PROBLEM
    if retry_after_ms:
        head += b"Retry-After: %d\r\n" % -(-retry_after_ms // 1000)
    return status, head, msgspec.json.encode(body)


def reply(value: object, status: int = 200) -> Response:
    """A JSON reply."""
    return status, JSON, msgspec.json.encode(value)


def not_allowed(methods: Iterable[str]) -> Response:
    """405: the target takes these methods, and HEAD where it takes GET."""
    named = [more for one in methods for more in ((one, "HEAD") if one == "GET" else (one,))]
    taken = ", ".join(named)
    status, head, body = render(405, Kind.INVALID, f"this target takes {taken}")
    return status, head + b"Allow: " + taken.encode() + b"\r\n", body
