"""What the client raises: a class for each code of a problem, and a few for the way there.

ClientError
    NotDone             answered, with problems; below it a class for each code
    Uncertain           sent and not answered: it may have been done
    Unreachable         not sent
    Overloaded          not taken, as there is too much
    Misrouted           not taken, as the broker is not set up
    NotOffered          not to be had over this protocol
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something was not done: a stable code, where, and a sentence."""

    code: str
    path: str
    message: str


class ClientError(Exception):
    """Of this client; ``code`` is stable."""

    code: ClassVar[str] = "error"


class Uncertain(ClientError):
    """It was sent, and no answer came: it may have been done, or be done later.

    An order may be sent again as it is: it is taken once.

    Attributes:
        confirmed: the broker has it, so that it is done sooner or later.
        retry_after: seconds, if the other end says when to come again.
    """

    code = "uncertain"

    def __init__(
        self, message: str, *, confirmed: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.confirmed = confirmed
        self.retry_after = retry_after


class Unreachable(ClientError):
    """Nobody could be reached; nothing was sent."""

    code = "unreachable"


class Overloaded(ClientError):
    """It was not taken now.

    Attributes:
        retry_after: seconds, if the other end says when to come again.
    """

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Misrouted(ClientError):
    """The broker has no queue for documents: an administrator has to set it up."""

    code = "misrouted"


class NotOffered(ClientError):
    """It is to be had over HTTP only."""

    code = "not_offered"


class NotDone(ClientError):
    """It was answered, and not done.

    Attributes:
        problems: each with its code and its path; the class is that of the first.
        verdict: over AMQP ``refused`` (an order's key is taken) or ``rejected``.
        status: over HTTP.
        key: the order's.
        order_id: of the order that has the key, if one has.
        repeated: it was answered the same before.
    """

    def __init__(
        self,
        message: str,
        problems: Sequence[Problem] = (),
        *,
        verdict: str | None = None,
        status: int | None = None,
        key: str | None = None,
        order_id: str | None = None,
        repeated: bool = False,
    ) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        self.verdict = verdict
        self.status = status
        self.key = key
        self.order_id = order_id
        self.repeated = repeated

    def has(self, code: str) -> bool:
        """Whether one of the problems has this code."""
        return any(problem.code == code for problem in self.problems)

    @property
    def codes(self) -> list[str]:
        """Of the problems."""
        return [problem.code for problem in self.problems]


def not_done(problems: Sequence[Problem], code: str = "error", **about: Any) -> NotDone:
    """The error of these problems.

    Args:
        code: of the whole answer, where there is no problem of a field.
    """
    first = problems[0] if problems else None
    said = ", ".join(
        f"{p.code} at {p.path}: {p.message}" if p.path else f"{p.code}: {p.message}"
        for p in problems[:3]
    )
    kinds = [_BY_CODE.get(name) for name in ((first.code,) if first else ()) + (code,)]
    kind = next((found for found in kinds if found is not None), NotDone)
    detail = about.pop("detail", "")
    return kind(said or detail, problems, **about)


class NotJson(NotDone):
    """Not JSON, or not an object."""

    code = "not_json"


class TooLarge(NotDone):
    """More than 256 KiB."""

    code = "too_large"


class TooManyFields(NotDone):
    """An object with more than 100 fields, or more than 10,000 values in all."""

    code = "too_many_fields"


class FieldRepeated(NotDone):
    """A field is given more than once, and which one is meant nobody knows."""

    code = "field_repeated"


class MoreProblems(NotDone):
    """There are more than 50: the message says how many are not listed."""

    code = "more_problems"


class FieldMissing(NotDone):
    """A field that is needed is not there."""

    code = "field_missing"


class FieldUnknown(NotDone):
    """There is no such field."""

    code = "field_unknown"


class FieldInvalid(NotDone):
    """A field has the wrong type or form."""

    code = "field_invalid"


class KeyInvalid(NotDone):
    """No key, or one that cannot be a key."""

    code = "key_invalid"


class KeyReused(NotDone):
    """Another document was taken under this key."""

    code = "key_reused"


class SubsidiaryUnknown(NotDone):
    """Not a subsidiary of the catalogue."""

    code = "subsidiary_unknown"


class CountryInvalid(NotDone):
    """Not a code of ISO 3166."""

    code = "country_invalid"


class LanguageInvalid(NotDone):
    """Not a code of ISO 639."""

    code = "language_invalid"


class EmailInvalid(NotDone):
    """Not an e-mail address that mail can be sent to."""

    code = "email_invalid"


class VatNumberInvalid(NotDone):
    """Wrong form, or the prefix is not the country's."""

    code = "vat_number_invalid"


class CustomerNotYours(NotDone):
    """The customer belongs to another upstream's realm."""

    code = "customer_not_yours"


class PaymentMethodMissing(NotDone):
    """No usable payment_method, and none is saved; something has to be paid."""

    code = "payment_method_missing"


class PaymentMethodExpiresInvalid(NotDone):
    """Not a month as 2028-06."""

    code = "payment_method_expires_invalid"


class TaxNotSupported(NotDone):
    """The tax table has no rule for this subsidiary and country."""

    code = "tax_not_supported"


class PlanUnknown(NotDone):
    """No such plan is on sale."""

    code = "plan_unknown"


class PlanNotSold(NotDone):
    """Not sold in this subsidiary."""

    code = "plan_not_sold"


class PeriodInvalid(NotDone):
    """Not a period, or longer than ten years."""

    code = "period_invalid"


class PeriodNotOffered(NotDone):
    """The plan has no price for it here; the message lists the periods that have one."""

    code = "period_not_offered"


class QuantityOutOfBounds(NotDone):
    """Outside what the plan allows."""

    code = "quantity_out_of_bounds"


class OptionMissing(NotDone):
    """The plan needs this option."""

    code = "option_missing"


class OptionInvalid(NotDone):
    """Not one of the option's values."""

    code = "option_invalid"


class OptionUnknown(NotDone):
    """The plan has no such option."""

    code = "option_unknown"


class OrderTooLarge(NotDone):
    """More than 1,000 services, all quantities together."""

    code = "order_too_large"


class ContractMissing(NotDone):
    """The plan's contract was not accepted."""

    code = "contract_missing"


class ContractOutdated(NotDone):
    """Other versions were accepted, the current one was not."""

    code = "contract_outdated"


class UserIdMissing(NotDone):
    """Over AMQP: the message lacks the property user_id."""

    code = "user_id_missing"


class Data(NotDone):
    """The database refuses the document for a reason nobody foresaw."""

    code = "data"


class CommandUnknown(NotDone):
    """There is no such command."""

    code = "command_unknown"


class CustomerUnknown(NotDone):
    """There is no such customer."""

    code = "customer_unknown"


class ServiceUnknown(NotDone):
    """The customer has no such service."""

    code = "service_unknown"


class ServiceNotDelivered(NotDone):
    """The service is not delivered yet."""

    code = "service_not_delivered"


class ServiceEnded(NotDone):
    """It is terminated, or about to be: place a new order."""

    code = "service_ended"


class DateInvalid(NotDone):
    """Expires_on is not a date, or as_of not a moment."""

    code = "date_invalid"


class LinkOutdated(NotDone):
    """The mode of the service was changed after as_of: the customer must be asked again."""

    code = "link_outdated"


class ExpiryUnknown(NotDone):
    """The service does not expire on that day; the message names the day."""

    code = "expiry_unknown"


class NotRolledOut(NotDone):
    """Renewal is not switched on for its brand and subsidiary."""

    code = "not_rolled_out"


class ContractUnknown(NotDone):
    """There is no such contract."""

    code = "contract_unknown"


class PriceGone(NotDone):
    """It has no price for its period any more."""

    code = "price_gone"


class VersionUnknown(NotDone):
    """A version of the document that is not known."""

    code = "version_unknown"


class TypeMismatch(NotDone):
    """The message says that the document is another one."""

    code = "type_mismatch"


class KeyMissing(NotDone):
    """No key was given."""

    code = "key_missing"


class KeyUnknown(NotDone):
    """The key is unknown, expired or revoked."""

    code = "key_unknown"


class ScopeMissing(NotDone):
    """The key lacks a scope."""

    code = "scope_missing"


class NotFound(NotDone):
    """There is nothing of this name that the key may see."""

    code = "not_found"


class MethodNotAllowed(NotDone):
    """The path does not take this method."""

    code = "method_not_allowed"


class TooSlow(NotDone):
    """The body did not arrive in time."""

    code = "too_slow"


class Conflict(NotDone):
    """What it is about is in another state."""

    code = "conflict"


class MediaType(NotDone):
    """The body is of another media type."""

    code = "media_type"


class Invalid(NotDone):
    """Some of what was sent is not accepted."""

    code = "invalid"


class Refused(NotDone):
    """What is asked for cannot be done."""

    code = "refused"


class TooManyRequests(NotDone):
    """The key may not ask for so much in a second."""

    code = "too_many_requests"


class Internal(NotDone):
    """A defect at the other end; it was logged there."""

    code = "internal"


class Unavailable(NotDone):
    """The database is away or full."""

    code = "unavailable"


class Malformed(NotDone):
    """The request is not well-formed."""

    code = "malformed"


_BY_CODE: dict[str, type[NotDone]] = {kind.code: kind for kind in NotDone.__subclasses__()}
