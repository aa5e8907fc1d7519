"""The JSON documents that upstream sends: orders, and commands about existing services."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from schemas.fields import (
    Country,
    EmailAddress,
    Identifier,
    Language,
    OptionName,
    Text,
    Token,
    VatNumber,
    vat_number,
)
from schemas.json_bodies import (
    MAX_BODY_BYTES,
    MAX_PROBLEMS,
    Problem,
    at_most,
    path_of,
    read,
    said_of,
)
from schemas.values import Period

__all__ = ["MAX_BODY_BYTES", "Problem"]  # those of a body, beside what is defined here


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


VERSIONS = (1,)
"""Of every document that upstream sends; one that names none is of version 1."""


class _Versioned(_Document):
    """What upstream sends whole."""

    version: Literal[1] = 1
    """Of the form of this document; it may be left out."""


class AddressDocument(_Document):
    """A postal address; its country is the customer's."""

    lines: Annotated[list[Text], Field(min_length=1, max_length=3)]
    """Street and number, building, care of."""
    city: Text
    postal_code: Text | None = None
    state: Text | None = None
    """State, province or county, where an address has one."""

    def as_kept(self) -> dict[str, Any]:
        """Without what it has not."""
        return self.model_dump(exclude_none=True)


class CustomerDocument(_Document):
    """Whom an order is billed to; a customer's first one also says who they are."""

    id: Identifier
    subsidiary: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
    country: Country
    language: Language
    email: EmailAddress
    vat_number: VatNumber | None = None
    name: Text | None = None
    company: Text | None = None
    address: AddressDocument | None = None

    @property
    def billed_to(self) -> dict[str, Any] | None:
        """Name, company and postal address, of those that are given."""
        given = self.model_dump(include={"name", "company", "address"}, exclude_none=True)
        return given or None

    @field_validator("vat_number")
    @classmethod
    def _as_kept(cls, number: str | None, known: ValidationInfo) -> str | None:
        country = known.data.get("country")
        return number if number is None or country is None else vat_number(number, country)


class AgreementDocument(_Document):
    contract: Identifier
    version: Annotated[int, Field(ge=1, le=1_000_000)]


Month = Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")]
"""As printed on a card, which is valid until the last day of that month."""

LocalDate = Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]$")]
ServiceId = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
]


class LineDocument(_Document):
    plan: Identifier
    period: Annotated[str, StringConstraints(pattern=r"^P[1-9][0-9]{0,2}[MY]$")]
    quantity: Annotated[int, Field(ge=1, le=1000)] = 1
    configuration: Annotated[dict[OptionName, Text], Field(max_length=50)] = {}


class OrderDocument(_Versioned):
    """An order. ``key`` is the idempotency key that upstream chose."""

    key: Identifier
    customer: CustomerDocument
    payment_method: Token | None = None
    """A token of a gateway; without one the customer's saved method pays."""
    payment_method_expires: Month | None = None
    payment_gateway: Identifier | None = None
    """The gateway that the token belongs to; without one, the one named ``default``."""
    contracts: Annotated[list[AgreementDocument], Field(max_length=100)] = []
    lines: Annotated[list[LineDocument], Field(min_length=1, max_length=100)]


Moment = Annotated[
    str, StringConstraints(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-9:]{8}\.[0-9]{6}Z$")
]
"""In UTC, with microseconds: a moment is compared with those that the database keeps."""


def moment_text(moment: datetime) -> str:
    """A moment as documents write it."""
    written = moment.astimezone(UTC).isoformat(timespec="microseconds")
    return written.replace("+00:00", "Z")


ServiceIds = Annotated[list[ServiceId], Field(min_length=1, max_length=1000)]


class _Command(_Versioned):
    """What one customer wants done; repeating it changes nothing more."""

    customer: Identifier


class _Decision(_Command):
    """A command that may say which moment's facts its customer decided on, as links do."""

    as_of: Moment | None = None


class StopCommand(_Decision):
    """Services end when the periods paid for them end."""

    command: Literal["stop"]
    services: ServiceIds


class ResumeCommand(_Decision):
    """Stopped services get the renewal mode back that they had before."""

    command: Literal["resume"]
    services: ServiceIds


class ModeCommand(_Command):
    command: Literal["mode"]
    services: ServiceIds
    mode: Literal["automatic", "manual", "stop"]


class RenewalDocument(_Document):
    """A service and the expiry its customer saw; if it expires later now, it has been renewed."""

    id: ServiceId
    expires_on: LocalDate


class RenewCommand(_Decision):
    """Services are renewed and charged now, together, whatever their mode."""

    command: Literal["renew"]
    services: Annotated[list[RenewalDocument], Field(min_length=1, max_length=1000)]
    contracts: Annotated[list[AgreementDocument], Field(max_length=100)] = []


class AcceptCommand(_Command):
    command: Literal["accept"]
    contracts: Annotated[list[AgreementDocument], Field(min_length=1, max_length=100)]


class PaymentMethodCommand(_Command):
    """A new payment method for these services, or for all and as the saved one.

    Unpaid renewals are charged to it at once.
    """

    command: Literal["payment_method"]
    payment_method: Token
    payment_method_expires: Month | None = None
    payment_gateway: Identifier | None = None
    services: ServiceIds | None = None


class CustomerCommand(_Command):
    """Change what is known of a customer: what is named changes, and null erases."""

    command: Literal["customer"]
    country: Country = ""
    language: Language = ""
    email: EmailAddress = ""
    vat_number: VatNumber | None = None
    name: Text | None = None
    company: Text | None = None
    address: AddressDocument | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """Field -> its new value, of those that are named."""
        named = self.model_fields_set - {"command", "customer", "version"}
        return {name: getattr(self, name) for name in sorted(named)}


CommandDocument = Annotated[
    StopCommand
    | ResumeCommand
    | ModeCommand
    | RenewCommand
    | AcceptCommand
    | PaymentMethodCommand
    | CustomerCommand,
    Field(discriminator="command"),
]
_COMMAND: TypeAdapter[CommandDocument] = TypeAdapter(CommandDocument)

KINDS: Mapping[str, tuple[type[BaseModel], ...]] = {
    "order": (OrderDocument,),
    "service-command": (StopCommand, ResumeCommand, ModeCommand, RenewCommand),
    "agreement": (AcceptCommand,),
    "payment-method": (PaymentMethodCommand,),
    "customer": (CustomerCommand,),
}
"""What upstream may send, by the name that the property ``type`` gives it: ``order.v1``."""


def command_of(model: type[BaseModel]) -> str | None:
    """What the field ``command`` says in a document of this form; None: it has no such field."""
    found = model.model_fields.get("command")
    return found.annotation.__args__[0] if found is not None and found.annotation else None


_KIND_OF_COMMAND = {command_of(model): kind for kind, models in KINDS.items() for model in models}
_TYPE = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,50})\.v([0-9]{1,6})")

NOT_OURS = frozenset({"version_unknown", "type_mismatch"})
"""Codes of documents that nothing was decided about: their keys are not taken."""


# Codes by field. Looked up by the field itself, never by its path as text: names inside a
# configuration, and names of unknown fields, may be any text.
_CODES = {
    ("payment_method_expires",): "payment_method_expires_invalid",
    ("customer", "email"): "email_invalid",
    ("customer", "country"): "country_invalid",
    ("customer", "subsidiary"): "subsidiary_unknown",
    ("customer", "language"): "language_invalid",
    ("customer", "vat_number"): "vat_number_invalid",
    ("email",): "email_invalid",
    ("country",): "country_invalid",
    ("language",): "language_invalid",
    ("vat_number",): "vat_number_invalid",
    ("payment_method",): "payment_method_missing",
    ("key",): "key_invalid",
    ("lines", "quantity"): "quantity_out_of_bounds",
    ("lines", "period"): "period_invalid",
}


Parsed = tuple[Any, OrderDocument | CommandDocument | None, list[Problem]]


def parse(body: bytes, type_: str | None = None) -> Parsed:
    """Read a document; never raises.

    Args:
        type_: what the message says that it is, such as ``order.v1``. A text of another form says
            nothing.

    Returns:
        The JSON value (None if the body is not JSON); the order or the command (None if its shape
        is not valid); and the problems (empty if it is valid), at most ``MAX_PROBLEMS`` of them
        and one that counts the others.
    """
    value, problems = read(body)
    if isinstance(value, dict) and (problem := _version_problem(value, type_)):
        return value, None, [problem]  # a form that is not known may be any
    if problems:
        return value, None, problems
    try:
        if "command" in value:
            return value, _COMMAND.validate_python(value), []
        return value, OrderDocument.model_validate(value), []
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[:MAX_PROBLEMS]
        # pydantic puts the kind of the command into the path; upstream knows no such field.
        listed = [_problem(problem, skip=value.get("command")) for problem in first]
        return value, None, at_most(listed, error.error_count())


def _version_problem(value: dict[str, Any], type_: str | None) -> Problem | None:
    """Why a document is of no form that is known here."""
    said = _TYPE.fullmatch(type_ or "")
    kind, version = (said[1], int(said[2])) if said else (None, None)
    if kind is not None and (kind not in KINDS or version not in VERSIONS):
        known = ", ".join(f"{name}.v{number}" for name in KINDS for number in VERSIONS)
        message = f"the property type says {kind}.v{version}; known are {known}"
        return Problem(code="version_unknown", path="version", message=message)
    given = value.get("version", version or 1)
    if type(given) is not int or given not in VERSIONS:
        message = f"known versions are {', '.join(map(str, VERSIONS))}"
        return Problem(code="version_unknown", path="version", message=message)
    command = value.get("command")
    actual = _KIND_OF_COMMAND.get(command) if command is None or isinstance(command, str) else None
    if kind is not None and (given != version or actual not in (kind, None)):
        message = f"the property type says {kind}.v{version}, the document is another one"
        return Problem(code="type_mismatch", path="", message=message)
    return None


def last_day(month: str) -> date:
    """The last day of a ``YYYY-MM``."""
    first = date.fromisoformat(f"{month}-01")
    return Period(1).end(first, 1) - timedelta(days=1)


def _problem(error: Any, skip: Any = None) -> Problem:
    if error["loc"] and error["loc"][0] == skip:
        error["loc"] = error["loc"][1:]
    path = path_of(error["loc"])
    field = tuple(part for part in error["loc"] if isinstance(part, str))  # without list indexes
    code = None if error["type"] == "extra_forbidden" else _CODES.get(field)
    message = said_of(error["type"], error["msg"])
    if error["type"].startswith("union_tag"):
        known = ", ".join(name for name in _KIND_OF_COMMAND if name)
        code, message = "command_unknown", f"known commands are {known}"
    elif code is None:
        code = {"missing": "field_missing", "extra_forbidden": "field_unknown"}.get(
            error["type"], "field_invalid"
        )
    return Problem(code=code, path=path, message=message)
