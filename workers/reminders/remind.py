"""The task ``remind``: one e-mail to one customer, with everything that is due to be said.

Its notices were claimed by a scheduler. Once it has begun nothing is added to it; a crash sends it
again under the same Message-ID. What it says is what is true when it is sent.
"""

import random
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from email.message import EmailMessage

from sqlalchemy import Connection, text

from producers import history
from producers.history import by_task
from producers.intake.links import Links
from producers.ledger import Claim, Failure, Outcome
from producers.renewals import next_steps
from producers.renewals.next_steps import Renewable
from producers.steps import REMIND
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock, local_date
from schemas.rules import lifecycle, outlook, sellable
from schemas.rules import notices as notices_rule
from schemas.rules.notices import DEARER, Notice
from schemas.rules.outlook import Decision
from schemas.rules.payable import PaymentMethod
from schemas.rules.quote import Quote
from schemas.tables.bulk import Bulk
from schemas.values import Money, ResourceState, ServiceId
from workers.reminders.mail import Item, Mail, Situation, compose
from workers.reminders.smtp import MailAnswer, Mailer, MailState
from workers.runtime.runtime import RetryPolicy

_EMAILS = text("""
    SELECT e.id, c.id AS customer_id, c.email, c.language, c.country, c.vat_number
    FROM (
        SELECT * FROM emails WHERE id = ANY(:ids) AND sent_at IS NULL
        ORDER BY id FOR NO KEY UPDATE
    ) AS e JOIN customers AS c ON c.id = e.customer_id
    ORDER BY e.id
""")
_BEGIN = text("UPDATE emails SET begun_at = :now WHERE id = ANY(:ids) AND begun_at IS NULL")
_NOTICES = text("""
    SELECT n.email_id, n.service_id, n.kind FROM notices AS n
    JOIN services AS s ON s.id = n.service_id AND s.expires_at = n.expires_at
    WHERE n.email_id = ANY(:ids) ORDER BY n.email_id, n.service_id, n.kind
""")
_METHODS = text("SELECT id, expires_on FROM payment_methods WHERE id = ANY(:ids)")


@dataclass(frozen=True, slots=True)
class Announced:
    """What an e-mail told its customer to pay for a renewal, with tax."""

    service_id: ServiceId
    period_number: int
    announced: Money
    currency: str


_announce = Bulk(
    Announced,
    """
    UPDATE renewals AS r SET announced = a.announced, currency = a.currency, announced_at = :now,
        raised_at = CASE WHEN a.announced > r.announced OR a.currency <> r.currency
            THEN CAST(:now AS timestamptz) ELSE r.raised_at END
    FROM json_to_recordset(CAST(:rows AS json)) AS a(
        service_id uuid, period_number integer, announced bigint, currency text)
    WHERE r.service_id = a.service_id AND r.period_number = a.period_number
    """,
)
_SENT = text("UPDATE emails SET sent_at = :now WHERE id = ANY(:ids) AND sent_at IS NULL")


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail with what it claims to say: service -> notices; and the amounts it names."""

    message: EmailMessage
    notices: Mapping[uuid.UUID, Sequence[Notice]]
    announced: Sequence[Announced]


class RemindHandler:
    name = REMIND

    def __init__(
        self,
        mailer: Mailer,
        sender: str,
        links: Links,
        catalogue: CatalogueCache,
        clock: Clock,
        *,
        policy: RetryPolicy,
    ) -> None:
        self.immediate = mailer.immediate
        self._mailer = mailer
        self._sender = sender
        self._links = links
        self._catalogue = catalogue
        self._clock = clock
        self._policy = policy

    def begin(self, tx: Connection, claim: Claim) -> tuple[list[tuple[uuid.UUID, Letter]], Outcome]:
        now, catalogue = self._clock.now(), self._catalogue.current(tx)
        emails = tx.execute(_EMAILS, {"ids": claim.subjects}).all()
        ids = [email.id for email in emails]
        tx.execute(_BEGIN, {"ids": ids, "now": now})
        claimed: dict[uuid.UUID, dict[uuid.UUID, list[Notice]]] = {i: {} for i in ids}
        for row in tx.execute(_NOTICES, {"ids": ids}):
            of_email = claimed[row.email_id]
            of_email.setdefault(row.service_id, []).append(Notice.parse(row.kind))
        services = {s for told in claimed.values() for s in told}
        held: dict[uuid.UUID, Renewable] = {
            s.id: s for s in next_steps.load(tx, services, catalogue)
        }
        methods = _methods(tx, held.values())
        calls = []
        for email in emails:
            notices = claimed[email.id]
            told = [held[s] for s in notices if held[s].view.desired is not ResourceState.ABSENT]
            items = [
                item_of(
                    service,
                    notices[service.id],
                    Payer(email.country, email.vat_number, methods.get(service.id)),
                    self._links,
                    catalogue,
                    now,
                )
                for service in told
            ]
            if items:
                mail = Mail(
                    id=email.id,
                    to=email.email,
                    language=email.language,
                    customer=email.customer_id,
                    brand=told[0].subsidiary.entity,
                    items=items,
                )
                message = compose(mail, self._sender, at=now)
                calls.append((email.id, Letter(message, notices, _amounts(told, items))))
        to_send = {subject for subject, _ in calls}
        # What it was to say is not true any more, or it was sent.
        return calls, Outcome(done=[s for s in claim.subjects if s not in to_send])

    def call(self, call: Letter) -> MailAnswer:
        return self._mailer.send(call.message)

    def record(
        self,
        tx: Connection,
        claim: Claim,
        answers: Sequence[tuple[uuid.UUID, Letter, MailAnswer]],
    ) -> Outcome:
        tasks = {task.subject: task for task in claim.tasks}
        outcome = Outcome()
        sent = []
        for subject, letter, answer in answers:
            reason, detail = answer.reason or f"mail_{answer.state}", answer.detail or ""
            match answer.state:
                case MailState.SENT:
                    sent.append((subject, letter))
                    outcome.done.append(subject)
                case MailState.REFUSED:
                    outcome.failures.append(Failure(subject, reason, detail))
                case _:
                    outcome.add(
                        self._policy.decide(tasks[subject], reason, detail, random.random())
                    )
        if sent:
            now, catalogue = self._clock.now(), self._catalogue.current(tx)
            services = {service for _, letter in sent for service in letter.notices}
            # Services before e-mails, as whoever claims notices does.
            next_steps.lock(tx, services)
            # Now and not when it was claimed: what is announced is what the customer was sent.
            _announce(tx, (a for _, letter in sent for a in letter.announced), now=now)
            tx.execute(_SENT, {"ids": [subject for subject, _ in sent], "now": now})
            # What may not happen without a notice may happen now.
            next_steps.decide_again(tx, services, catalogue, now)
            history.record(
                tx,
                (
                    by_task(
                        tasks[subject], REMIND, service, "notice.sent",
                        {"kinds": list(map(str, said)), "message_id": letter.message["Message-ID"]},
                    )
                    for subject, letter in sent
                    for service, said in letter.notices.items()
                ),
            )  # fmt: skip
        return outcome


def _amounts(services: Sequence[Renewable], items: Sequence[Item]) -> list[Announced]:
    return [
        Announced(service.id, service.paid_periods + 1, item.amount, item.amount.currency)
        for service, item in zip(services, items, strict=True)
        if item.amount is not None
    ]


@dataclass(frozen=True, slots=True)
class Payer:
    """What of a customer decides about the tax and the payment of a service."""

    country: str
    vat_number: str | None
    method: PaymentMethod | None


def _methods(tx: Connection, services: Iterable[Renewable]) -> dict[uuid.UUID, PaymentMethod]:
    """Service -> what it is paid with."""
    paid_with = {s.id: s.payment_method_id for s in services if s.payment_method_id is not None}
    rows = tx.execute(_METHODS, {"ids": list(set(paid_with.values()))})
    found = {row.id: PaymentMethod(row.id, row.expires_on) for row in rows}
    return {service: found[method] for service, method in paid_with.items() if method in found}


def item_of(
    service: Renewable,
    notices: Sequence[Notice],
    payer: Payer,
    links: Links,
    catalogue: Catalogue,
    now: datetime,
) -> Item:
    """What a mail says about a service, as it is now.

    Args:
        notices: what was due to be said about it.

    Raises:
        DataError: the tax table has no rate for its customer.
    """
    situation = notices_rule.situation(notices, situation_of(service, payer.method, now))
    quote = _announcement(service, payer, now)
    return Item(
        situation=situation,
        name=service.plan.name,
        detail=service.detail,
        expires_on=service.view.expires_on,
        amount=None if quote is None or situation is Situation.STOPS else quote.gross,
        periods=quote.periods if quote is not None else service.periods_to_reach(now),
        on=_on(service, situation, quote, now),
        links=_links(service, situation, links, catalogue),
    )


def situation_of(service: Renewable, method: PaymentMethod | None, now: datetime) -> Situation:
    """What is true of a service now, whatever was due to be said."""
    view = service.view
    today = local_date(now, view.timezone)
    decision = outlook.decision(view, service.plan.policy, method, today)
    if decision is Decision.WILL_STOP:
        return Situation.STOPS
    if view.is_suspended:
        return Situation.SUSPENDED
    if decision is Decision.UNDECIDED_CONTRACT:
        return Situation.ACCEPT
    if view.cycle.last_declined_at is not None:
        return Situation.DECLINED
    if decision is Decision.UNDECIDED_MANUAL:
        return Situation.PAY
    return Situation.METHOD if decision is Decision.UNDECIDED_PAYMENT else Situation.RENEWS


def _announcement(service: Renewable, payer: Payer, now: datetime) -> Quote | None:
    """What renewing a service costs now, or on the day on which it is charged, whichever is more:
    the tax rate may change in between, and both may happen at what was announced."""
    at = _charged_at(service, None, now)
    quotes = [
        quote
        for moment in {now, at or now}
        if (quote := service.quote(payer.country, payer.vat_number, moment)) is not None
    ]
    return max(quotes, key=lambda quote: quote.gross.amount, default=None)


def _charged_at(service: Renewable, told: Quote | None, now: datetime) -> datetime | None:
    """When it is charged next by itself, once its customer was told now; None: it is not."""
    cycle = service.view.cycle
    said = {**cycle.notices, Notice(DEARER, cycle.dearer): now}
    cycle = replace(cycle, notices=said, announced_at=now)
    if told is not None and told.is_dearer_than(service.announced):
        cycle = replace(cycle, raised_at=now)
    payment = lifecycle.next_payment(replace(service.view, cycle=cycle), service.plan.policy)
    return None if payment is None else max(payment.at, now)


def _on(
    service: Renewable, situation: Situation, quote: Quote | None, now: datetime
) -> date | None:
    """When what the situation announces will be done."""
    view = service.view
    match situation:
        case Situation.RENEWS | Situation.DECLINED | Situation.DEARER:
            at = _charged_at(service, quote, now)
        case Situation.SUSPENDED:
            at = lifecycle.end_of_suspension(view, service.plan.policy, now)
        case _:
            return None
    return None if at is None else local_date(max(at, now), view.timezone)


def _links(
    service: Renewable, situation: Situation, links: Links, catalogue: Catalogue
) -> dict[str, str]:
    id_ = str(service.id)
    whose = {"customer": service.customer_id}
    renew = {
        "command": "renew",
        **whose,
        "services": [{"id": id_, "expires_on": service.view.expires_on.isoformat()}],
    }
    if situation is Situation.STOPS:
        return {"resume": links.url({"command": "resume", **whose, "services": [id_]})}
    stop = links.url({"command": "stop", **whose, "services": [id_]})
    contract = sellable.contract_of(service.plan, catalogue)
    if service.view.missing_contract is not None and contract is not None:
        agreed = [{"contract": contract.code, "version": contract.version}]
        return {"accept": links.url({**renew, "contracts": agreed}), "stop": stop}
    return {"renew": links.url(renew), "stop": stop}
