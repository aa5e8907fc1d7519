"""What the OpenAPI document says of the routes that take orders, which are plain ones."""

from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field, TypeAdapter

from producers.api.problems import MEDIA_TYPE, ProblemDocument, responses
from producers.api.routes.orders import BATCH, MOST_LINES, ORDERS
from producers.api.waiting import LONGEST_SECONDS
from producers.views.orders import OrderView
from schemas.messages import OrderDocument

EXAMPLE: dict[str, Any] = {
    "key": "order-1",
    "customer": {
        "id": "c-1", "subsidiary": "FR", "country": "FR", "language": "fr",
        "email": "alice@example.com",
    },
    "payment_method": "tok_visa_4242",
    "contracts": [{"contract": "hosting-terms", "version": 3}],
    "lines": [{"plan": "web-start", "period": "P12M", "quantity": 1,
               "configuration": {"domain": "example.com"}}],
}  # fmt: skip
_ID = "5d1c7a52-8f2e-5b0c-9a51-0c1f3f1f2a77"


class Accepted(BaseModel):
    """The order is committed, and on its way."""

    key: str
    order: UUID
    state: str = Field(examples=["accepted"])


class Line(BaseModel):
    """What became of one line of a batch; ``status`` is that of an order sent alone."""

    line: int
    status: int
    key: str | None = None
    order: UUID | None = None
    repeated: bool | None = None
    """The same order was answered this way before."""
    problem: ProblemDocument | None = None


_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The idempotency key of an order is its `key`: if this is given it is that.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 100},
}
_WAIT = {
    "name": "wait",
    "in": "query",
    "required": False,
    "description": "Seconds for which to wait for the order's end; the answer is 200 and the order"
    " as soon as it has ended, else 202.",
    "schema": {"type": "integer", "minimum": 0, "maximum": LONGEST_SECONDS, "default": 0},
}


def add(document: dict[str, Any]) -> None:
    """Add the two routes, and what they take and answer."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model, mode in (
        (OrderDocument, "validation"), (Accepted, "serialization"), (Line, "serialization"),
        (OrderView, "serialization"), (ProblemDocument, "serialization"),
    ):  # fmt: skip
        made = TypeAdapter(model).json_schema(
            mode=mode,  # type: ignore[arg-type]
            ref_template="#/components/schemas/{model}",
        )
        for name, schema in made.pop("$defs", {}).items():
            schemas.setdefault(name, schema)
        schemas.setdefault(model.__name__, made)
    document["paths"][ORDERS] = {"post": _one()}
    document["paths"][BATCH] = {"post": _many()}


def _one() -> dict[str, Any]:
    return {
        "tags": ["orders"],
        "summary": "Take an order",
        "description": "202 once it is committed. The same `key` with the same body is answered as"
        " before; with another body the answer is 409. What it may hold: the reference of orders.",
        "operationId": "post_order",
        "security": [{"key": []}],
        "parameters": [_WAIT, _IDEMPOTENCY],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/OrderDocument"},
                    "example": EXAMPLE,
                }
            },
        },
        "responses": {
            "200": _answer("OrderView", "It has ended; with `wait` alone.", None),
            "202": _answer(
                "Accepted",
                "It is committed, and on its way.",
                {"key": "order-1", "order": _ID, "state": "accepted"},
            ),
            **_problems("invalid", "key_reused", "too_large", "media_type", "too_slow"),
        },
    }


def _many() -> dict[str, Any]:
    return {
        "tags": ["orders"],
        "summary": "Take many orders",
        "description": f"NDJSON: an order a line, up to {MOST_LINES:,}. Each is taken, refused or"
        " rejected by itself. After an error of the whole request send it again as it is: what was"
        " taken is answered as `repeated`.",
        "operationId": "post_orders",
        "security": [{"key": []}],
        "requestBody": {
            "required": True,
            "content": {
                "application/x-ndjson": {
                    "schema": {"description": "Orders (`OrderDocument`), one a line."},
                }
            },
        },
        "responses": {
            "200": {
                "description": "An answer a line, in the order of the lines.",
                "content": {
                    "application/x-ndjson": {
                        "schema": {"type": "string", "description": "`Line` objects, one a line."},
                        "example": '{"line":1,"status":202,"key":"order-1",'
                        f'"order":"{_ID}","repeated":false}}\n',
                    }
                },
            },
            **_problems("invalid", "too_large", "media_type", "too_slow"),
        },
    }


def _answer(schema: str, description: str, example: Any) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    if example is not None:
        content["example"] = example
    return {"description": description, "content": {"application/json": content}}


def _problems(*codes: str) -> dict[str, Any]:
    said = {}
    for status, response in responses(*codes).items():
        content = response["content"][MEDIA_TYPE]
        said[str(status)] = {
            "description": response["description"],
            "content": {MEDIA_TYPE: content},
        }
    return said
