"""Reads rows of an import: existing services of another system, as CSV or NDJSON.

A row is one line, so that a malformed one does not harm the others. Nothing here knows the database
or the catalogue.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from functools import lru_cache
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from schemas.errors import AutorenewError
from schemas.fields import Identifier, OptionName, Text, Token
from schemas.json_bodies import unambiguous
from schemas.messages import CustomerDocument, Problem
from schemas.values import Period

# The longest valid row: 50 options of the longest names and values, all written as escapes.
MAX_ROW_BYTES = 256 * 1024
REDACTED = "***"

Form = Literal["csv", "ndjson"]

_Day = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]


class ServiceDocument(BaseModel):
    """The fields of a row, without those that describe its customer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    customer: Identifier
    plan: Identifier
    period: str
    resource_id: Text
    expires_on: _Day
    mode: Literal["automatic", "manual", "stop"] = "automatic"
    anchor: _Day | None = None
    state: Literal["active", "suspended"] = "active"
    contract_version: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    payment_method: Token | None = None
    payment_method_expires: (
        Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}(-[0-9]{2})?$")] | None
    ) = None
    payment_gateway: Identifier | None = None
    configuration: Annotated[dict[OptionName, Text], Field(max_length=50)] = {}


CUSTOMER_FIELDS = tuple(name for name in CustomerDocument.model_fields if name != "id")
FIELDS = (*ServiceDocument.model_fields, *CUSTOMER_FIELDS)
REQUIRED = tuple(
    name for name, field in ServiceDocument.model_fields.items() if field.is_required()
)

# Field -> the code of its problem, and what is accepted.
_ACCEPTED = {
    "customer": ("customer_invalid", "1 to 100 printable characters without blanks at the ends"),
    "plan": ("plan_unknown", "the code of a plan"),
    "period": ("period_invalid", "a period such as P1M or P12M"),
    "resource_id": ("resource_missing", "1 to 200 printable characters without blanks at the ends"),
    "expires_on": ("date_invalid", "a day such as 2027-01-31, from 1970 to 2199"),
    "anchor": ("date_invalid", "a day such as 2027-01-31, from 1970 to 2199"),
    "mode": ("mode_invalid", "automatic, manual or stop"),
    "state": ("state_invalid", "active or suspended"),
    "contract_version": ("contract_version_invalid", "a whole number from 1"),
    "payment_method": ("payment_method_invalid", "a token of 1 to 200 visible ASCII characters"),
    "payment_method_expires": (
        "payment_method_invalid",
        "a month such as 2027-01, or a day, from 1970 to 2199",
    ),
    "payment_gateway": ("payment_method_invalid", "the name of a gateway"),
    "configuration": ("configuration_invalid", "a JSON object of at most 50 texts by name"),
    "subsidiary": ("subsidiary_unknown", "the code of a subsidiary, such as FR"),
    "country": ("country_invalid", "an ISO 3166 code such as FR"),
    "language": ("language_invalid", "an ISO 639 code such as fr"),
    "email": ("email_invalid", "an e-mail address"),
    "vat_number": ("vat_number_invalid", "a VAT number such as FR40303265045"),
    "name": ("name_invalid", "1 to 200 printable characters"),
    "company": ("company_invalid", "1 to 200 printable characters"),
    "address": ("address_invalid", "a JSON object with lines and city"),
}


class Row(NamedTuple):
    """A row of valid shape.

    Attributes:
        line: its number in the file, from 1.
        raw: as it was read.
        person: the fields given that describe the customer.
        pays_until: the last day on which the payment method can be charged.
    """

    line: int
    raw: bytes
    service: ServiceDocument
    person: Mapping[str, Any]
    period: Period
    expires_on: date
    anchor: date | None
    pays_until: date | None


class RowFormat(Protocol):
    def fields(self, raw: bytes) -> dict[str, Any]:
        """The fields that are given.

        Raises:
            ValueError: the line is not a row.
        """
        ...

    def shown(self, raw: bytes) -> str:
        """A copy that is safe to store: the payment method is masked."""
        ...


class CsvRows:
    """Rows of a CSV file.

    Args:
        header: the first line: names of columns, in any order.

    Raises:
        AutorenewError: ``header_invalid``.
    """

    def __init__(self, header: bytes) -> None:
        if not header:
            raise _header_invalid("the file is empty")
        try:
            self._columns = _cells(header)
        except ValueError as error:
            raise _header_invalid(f"it cannot be read ({error})") from None
        unknown = sorted({name for name in self._columns if name not in FIELDS})
        if unknown:
            named = ", ".join(ascii(name[:40]) for name in unknown[:5])
            raise _header_invalid(f"there is no column {named}; there are {', '.join(FIELDS)}")
        missing = [name for name in REQUIRED if name not in self._columns]
        if missing:
            raise _header_invalid(f"it lacks {', '.join(missing)}")
        if len(set(self._columns)) < len(self._columns):
            raise _header_invalid("it names a column twice")

    def fields(self, raw: bytes) -> dict[str, Any]:
        cells = _cells(raw)
        if len(cells) != len(self._columns):
            raise ValueError(f"{len(cells)} cells where the header has {len(self._columns)}")
        fields: dict[str, Any] = {
            name: cell for name, cell in zip(self._columns, cells, strict=True) if cell
        }
        # CSV has texts where NDJSON has types. A text that is not a number, or not JSON, is left as
        # it is and refused with its field.
        version = fields.get("contract_version")
        if version is not None and re.fullmatch("[0-9]{1,9}", version):
            fields["contract_version"] = int(version)
        for name in ("configuration", "address"):
            if name in fields:
                try:
                    fields[name] = unambiguous(fields[name])
                except ValueError:
                    pass
        return fields

    def shown(self, raw: bytes) -> str:
        secret = "payment_method" in self._columns
        try:
            cells = _cells(raw)
        except ValueError:
            cells = []
        if secret and len(cells) != len(self._columns):
            return REDACTED  # any cell could be the payment method
        if not cells:
            return raw[:MAX_ROW_BYTES].decode(errors="backslashreplace")
        if secret and cells[self._columns.index("payment_method")]:
            cells[self._columns.index("payment_method")] = REDACTED
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(cells)
        return text.getvalue()


def _cells(raw: bytes) -> list[str]:
    """The cells of one line; a quote that is not closed on the line is an error."""
    text = raw.decode()
    if '"' not in text and "\r" not in text:
        return text.split(",")
    try:
        return next(csv.reader((text,), strict=True))
    except csv.Error as error:
        raise ValueError(f"not CSV: {error}") from None


def _header_invalid(what: str) -> AutorenewError:
    return AutorenewError(f"the first line is no header: {what}", code="header_invalid")


class NdjsonRows:
    """Rows of an NDJSON file: a JSON object a line."""

    def fields(self, raw: bytes) -> dict[str, Any]:
        value = unambiguous(raw)
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        return {name: item for name, item in value.items() if item is not None and item != ""}

    def shown(self, raw: bytes) -> str:
        try:
            fields = self.fields(raw)
        except ValueError:
            return REDACTED
        # The value of an unknown field is masked: its name may be a misspelt payment_method.
        safe = {
            name: item if name in FIELDS and name != "payment_method" else REDACTED
            for name, item in fields.items()
        }
        return json.dumps(safe, ensure_ascii=False)


def lines(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty, with their numbers; only the start of a line that is too long.

    A byte order mark is removed.
    """
    number = 0
    while raw := source.readline(MAX_ROW_BYTES + 2):
        number += 1
        end = raw
        while end and not end.endswith(b"\n"):
            end = source.readline(MAX_ROW_BYTES)
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        raw = raw.rstrip(b"\r\n")
        if raw and not raw.isspace():
            yield number, raw


def parse(rows: RowFormat, line: int, raw: bytes) -> tuple[Row | None, list[Problem]]:
    """Read one row; never raises.

    Returns:
        The row and no problems; or None and all its problems.
    """
    if len(raw) > MAX_ROW_BYTES:
        return None, [_malformed(f"more than {MAX_ROW_BYTES} bytes")]
    try:
        fields = rows.fields(raw)
    except ValueError as error:  # also for a line that is not UTF-8
        return None, [_malformed(str(error))]
    person = {name: fields.pop(name) for name in CUSTOMER_FIELDS if name in fields}
    problems: list[Problem] = []
    if person:
        person, problems = _read_person(person)
    try:
        service = ServiceDocument.model_validate(fields)
    except ValidationError as error:
        problems += _of_shape(error)
        # Report all other problems of the row at once.
        problems += (_wrong(name) for name in _unreadable(fields) - {p.path for p in problems})
        return None, sorted(problems, key=lambda problem: problem.path)
    problems += (_wrong(name) for name in sorted(_unreadable(fields)))
    token, pays_until = service.payment_method, service.payment_method_expires
    if pays_until is not None and token is None:
        problems.append(_problem("payment_method_expires", "there is no payment method"))
    if service.payment_gateway is not None and token is None:
        problems.append(_problem("payment_gateway", "there is no payment method"))
    if token == REDACTED:
        problems.append(_problem("payment_method", "was redacted: put the token back"))
    period, expires_on = _period(service.period), day(service.expires_on)
    if problems or period is None or expires_on is None:
        return None, problems
    return (
        Row(
            line,
            raw,
            service,
            person,
            period,
            expires_on,
            day(service.anchor) if service.anchor is not None else None,
            day(pays_until) if pays_until is not None else None,
        ),
        [],
    )


def _unreadable(fields: dict[str, Any]) -> set[str]:
    """Fields of the right shape without a meaning, such as 30 February."""
    return {
        name
        for name, read in _READERS.items()
        if isinstance(text := fields.get(name), str) and read(text) is None
    }


@lru_cache(maxsize=4096)
def _period(text: str) -> Period | None:
    try:
        return Period.parse(text)
    except ValueError:
        return None


@lru_cache(maxsize=65_536)
def day(text: str) -> date | None:
    """A day, or the last day of a month such as ``2027-01``; None if there is no such day."""
    try:
        if len(text) == 7:
            found = Period(1).end(date.fromisoformat(f"{text}-01"), 1) - timedelta(days=1)
        else:
            found = date.fromisoformat(text)
    except ValueError:
        return None
    return found if 1970 <= found.year < 2200 else None


# Stands in for the fields that are not given.
_ANYBODY = {
    "id": "any",
    "subsidiary": "FR",
    "country": "FR",
    "language": "fr",
    "email": "any@example.com",
}

_READERS: dict[str, Callable[[str], object]] = {
    "period": _period,
    "expires_on": day,
    "anchor": day,
    "payment_method_expires": day,
}


def _read_person(person: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The given fields of a customer, as they are kept, and their problems.

    A missing field is no problem: it may not be needed.
    """
    try:
        read = CustomerDocument.model_validate({**_ANYBODY, **person})
    except ValidationError as error:
        return person, [
            _wrong(str(problem["loc"][0]))
            for problem in error.errors(include_url=False, include_input=False)
        ]
    return read.model_dump(include=set(person), exclude_none=True), []


def _of_shape(error: ValidationError) -> list[Problem]:
    problems = {}
    for problem in error.errors(include_url=False, include_input=False):
        field = str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            name = ascii(field[:40])
            problems[field] = Problem(
                code="field_unknown", path=name[1:-1], message=f"there is no field {name}"
            )
        elif problem["type"] == "missing" and field != "resource_id":
            problems[field] = Problem(
                code="field_missing", path=field, message=f"{field}: {_ACCEPTED[field][1]}"
            )
        else:
            problems[field] = _wrong(field)
    return list(problems.values())


def _wrong(field: str) -> Problem:
    """A problem that says what is accepted, never the value: a secret may be in a wrong column."""
    return _problem(field, f"must be {_ACCEPTED[field][1]}")


def _problem(field: str, message: str) -> Problem:
    return Problem(code=_ACCEPTED[field][0], path=field, message=f"{field} {message}")


def _malformed(message: str) -> Problem:
    return Problem(code="row_malformed", path="", message=message)
