"""What upstream sends: one order, as a JSON document."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json

MAX_BODY_BYTES = 256 * 1024

# No control characters: PostgreSQL keeps no NUL, and a person has to read these.
_Word = StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")
Word = Annotated[str, _Word]
Key = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,100}$")]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CustomerDocument(_Document):
    id: Key
    subsidiary: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
    language: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]
    email: Annotated[
        str,
        StringConstraints(pattern=r"^[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]+\.[^@\s.]{2,}$"),
        Field(max_length=254),
    ]
    vat_number: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9 .-]{4,20}$")] | None = None


class AgreementDocument(_Document):
    contract: Key
    version: Annotated[int, Field(ge=1, le=1_000_000)]


class LineDocument(_Document):
    plan: Key
    period: Annotated[str, StringConstraints(pattern=r"^P[1-9][0-9]{0,2}[MY]$")]
    quantity: Annotated[int, Field(ge=1, le=1000)] = 1
    configuration: Annotated[dict[Key, Word], Field(max_length=50)] = {}


class OrderDocument(_Document):
    """An order. ``key`` is the idempotency key its upstream chose."""

    key: Key
    customer: CustomerDocument
    payment_method: Word
    contracts: Annotated[list[AgreementDocument], Field(max_length=100)] = []
    lines: Annotated[list[LineDocument], Field(min_length=1, max_length=100)]


class Problem(BaseModel):
    """Why a document is not accepted: a stable code, where, and a sentence."""

    code: str
    path: str
    message: str


# The shape's problems, named as upstream knows the fields. By the field itself, never by what its
# path looks like: names within a configuration, and of fields that do not exist, are anything.
_CODES = {
    ("customer", "email"): "email_invalid",
    ("customer", "country"): "country_invalid",
    ("customer", "subsidiary"): "subsidiary_unknown",
    ("customer", "language"): "language_invalid",
    ("customer", "vat_number"): "vat_number_invalid",
    ("payment_method",): "payment_method_missing",
    ("key",): "key_invalid",
    ("lines", "quantity"): "quantity_out_of_bounds",
    ("lines", "period"): "period_invalid",
}


def parse(body: bytes) -> tuple[Any, OrderDocument | None, list[Problem]]:
    """Read a document; never raises.

    Returns:
        The JSON value as far as there is one, the order if its shape is right, and what is
        wrong otherwise.
    """
    if len(body) > MAX_BODY_BYTES:
        message = f"{len(body)} bytes, at most {MAX_BODY_BYTES} are accepted"
        return None, None, [Problem(code="too_large", path="", message=message)]
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        return None, None, [Problem(code="not_json", path="", message=str(error))]
    if not isinstance(value, dict):
        return value, None, [Problem(code="not_json", path="", message="not a JSON object")]
    try:
        return value, OrderDocument.model_validate(value), []
    except ValidationError as error:
        return value, None, [_problem(p) for p in error.errors(include_input=False)]


def _problem(error: Any) -> Problem:
    path = ".".join(re.sub(r"[^ -~]", "?", str(part))[:100] for part in error["loc"])
    field = tuple(part for part in error["loc"] if isinstance(part, str))  # whichever of a list
    code = _CODES.get(field)
    if code is None:
        code = {"missing": "field_missing", "extra_forbidden": "field_unknown"}.get(
            error["type"], "field_invalid"
        )
    return Problem(code=code, path=path, message=error["msg"])
