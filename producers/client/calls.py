"""What can be asked for: how it is said over HTTP and over AMQP, and how the answer is read."""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from producers.client.errors import NotDone, Problem, not_done
from producers.client.reading import read

T = TypeVar("T")
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Placed:
    """An order that was accepted.

    Attributes:
        repeated: it had been accepted before.
    """

    key: str
    order_id: str
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """Something that was done.

    Attributes:
        changed: False: it was so already.
    """

    changed: bool


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One thing to ask for.

    Attributes:
        read: makes a result of an answer over HTTP.
        document: over AMQP; None: it is offered over HTTP only.
        kind: the document's, as ``order.v1``.
        read_reply: makes a result of an answer over AMQP.
        is_safe: over HTTP it may be sent again when nobody knows whether it was done.
        is_safe_document: the same over AMQP, where nothing tells that it is the same request.
    """

    method: str
    path: str
    read: Callable[[HttpAnswer], T]
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    document: bytes | None = None
    kind: str = ""
    read_reply: Callable[[Json], T] | None = None
    is_safe: bool = True
    is_safe_document: bool = True


def encoded(document: Json | bytes) -> bytes:
    """A document as it is sent; bytes are sent as they are."""
    if isinstance(document, bytes):
        return document
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


_JSON = {"Content-Type": "application/json"}


def place(order: Json | bytes) -> Call[Placed]:
    body = encoded(order)
    return Call(
        "POST", "/v1/orders", _placed, body, _JSON,
        document=body, kind="order.v1", read_reply=_placed_reply,
    )  # fmt: skip


def place_many(orders: Sequence[Json | bytes]) -> Call[list[Placed | NotDone]]:
    """Over HTTP; over AMQP each is a call of its own."""
    body = b"\n".join(encoded(order).replace(b"\n", b" ") for order in orders)
    return Call("POST", "/v1/orders:batch", _batch, body, {"Content-Type": "application/x-ndjson"})


def command(
    kind: str,
    document: Json,
    method: str,
    path: str,
    body: Json | None,
    *,
    is_safe_document: bool,
) -> Call[Done]:
    """A command. Over HTTP each request has a name of its own, so that it is done once."""
    named = {} if method in ("PUT", "PATCH") else {"Idempotency-Key": str(uuid.uuid4())}
    return Call(
        method, path, _done, encoded(body or {}), {**_JSON, **named},
        document=encoded(document), kind=kind, read_reply=_done_reply,
        is_safe=method != "PATCH", is_safe_document=is_safe_document,
    )  # fmt: skip


def get(kind: type[T], *path: str, **query: Any) -> Call[T]:
    """Something to read, over HTTP.

    Args:
        kind: a model of it.
    """
    return _get(lambda answer: read(kind, _json(answer)), path, query)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list, and where the next one begins."""

    items: list[T]
    next: str | None


def page(kind: type[T], *path: str, **query: Any) -> Call[Page[T]]:
    """A part of a list of such models."""

    def of(answer: HttpAnswer) -> Page[T]:
        said = _json(answer)
        return Page([read(kind, one) for one in said["items"]], said.get("next"))

    return _get(of, path, query)


def _get(of: Callable[[HttpAnswer], T], path: Sequence[str], query: Json) -> Call[T]:
    given = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in query.items()
        if value is not None
    }
    where = "/v1/" + "/".join(segment(part) for part in path)
    return Call("GET", where + (f"?{urlencode(given, doseq=True)}" if given else ""), of)


def segment(text: str) -> str:
    """A part of a path."""
    return quote(text, safe="")


def _json(answer: HttpAnswer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.body)
    return found


def _placed(answer: HttpAnswer) -> Placed:
    said = _json(answer)
    return Placed(said["key"], said["order"], answer.headers.get("Idempotency-Replayed") == "true")


def _done(answer: HttpAnswer) -> Done:
    return Done(bool(_json(answer)["changed"]))


def _batch(answer: HttpAnswer) -> list[Placed | NotDone]:
    return [_line(json.loads(line)) for line in answer.body.splitlines()]


def _line(said: Json) -> Placed | NotDone:
    if "problem" not in said:
        return Placed(said["key"], said["order"], said["repeated"])
    return error_of(
        said["problem"],
        status=said["status"],
        key=said.get("key"),
        order_id=said.get("order"),
        repeated=said.get("repeated", False),
    )


def _placed_reply(reply: Json) -> Placed:
    return Placed(reply["key"], reply["order_id"], reply["repeated"])


def _done_reply(reply: Json) -> Done:
    return Done(not reply["repeated"])


def error_of(problem: Json, **about: Any) -> NotDone:
    """Of a problem document (RFC 9457)."""
    return not_done(
        _problems(problem),
        problem.get("code", "error"),
        detail=problem.get("detail") or problem.get("title", ""),
        **about,
    )


def reply_error(reply: Json) -> NotDone:
    """Of an answer over AMQP that is not ``accepted``."""
    return not_done(
        _problems(reply),
        verdict=reply["verdict"],
        key=reply.get("key"),
        order_id=reply.get("order_id"),
        repeated=reply.get("repeated", False),
    )


def _problems(said: Json) -> list[Problem]:
    return [Problem(p["code"], p["path"], p["message"]) for p in said.get("problems") or ()]
