"""The task ``remind``: one e-mail to one customer, with everything that is due to be said.

Its notices were claimed by a scheduler. Once it has begun nothing is added to it; a crash sends it
again under the same Message-ID. What it says is what is true when it is sent.

What cannot be written about one service, such as an amount without a tax rate, holds up no other:
it goes into an e-mail of its own, whose task fails. It is not sent, so its notices end nothing.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from typing import Any

from sqlalchemy import Connection, text

from monitoring import metrics
from producers import history, ledger
from producers.history import by_task
from producers.intake.links import Links
from producers.ledger import Claim, ClaimedTask, Failure, Outcome
from producers.renewals import next_steps
from producers.renewals.announcing import Payer
from producers.renewals.next_steps import Renewable
from producers.steps import MAIL, REMIND
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.errors import DataError, first_line
from schemas.rules.notices import Notice
from schemas.rules.payable import PaymentMethod
from schemas.tables.bulk import Bulk
from schemas.values import Money, ResourceState, ServiceId, derived_id
from workers.outside.attempts import DONE, Meaning, settle
from workers.reminders.all_services import AllServices
from workers.reminders.items import item_of
from workers.reminders.keeping import keep
from workers.reminders.mail import MOST_ITEMS, Item, Mail, compose
from workers.reminders.sending import Sending
from workers.reminders.smtp import MailAnswer, Mailer, MailState, code_of
from workers.runtime.retries import RetryPolicy

_EMAILS = text("""
    SELECT e.id, e.begun_at, c.id AS customer_id, c.email, c.language, c.country, c.vat_number
    FROM (
        SELECT id, customer_id, begun_at FROM emails WHERE id = ANY(:ids) AND sent_at IS NULL
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
    announced_currency: str


_announce = Bulk(
    Announced,
    """
    UPDATE renewals AS r SET announced = a.announced, announced_currency = a.announced_currency,
        announced_at = :now,
        raised_at = CASE
            WHEN a.announced > r.announced OR a.announced_currency <> r.announced_currency
            THEN CAST(:now AS timestamptz) ELSE r.raised_at END,
        -- Its subsidiary got another currency while the e-mail was on its way: told again.
        dearer = r.dearer + CAST(a.announced_currency <> u.definition->>'currency' AS integer),
        dearer_at = CASE WHEN a.announced_currency <> u.definition->>'currency'
            THEN CAST(:now AS timestamptz) ELSE r.dearer_at END
    FROM json_to_recordset(CAST(:rows AS json)) AS a(
        service_id uuid, period_number integer, announced bigint, announced_currency text)
    JOIN services AS s ON s.id = a.service_id JOIN subsidiaries AS u ON u.code = s.subsidiary
    WHERE r.service_id = a.service_id AND r.period_number = a.period_number
    """,
)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A service that moves from an e-mail into another of the same customer and day."""

    email_id: uuid.UUID
    service_id: uuid.UUID
    moves_to: uuid.UUID


_leave_out = Bulk(
    LeftOut,
    """
    WITH left_out AS (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
            email_id uuid, service_id uuid, moves_to uuid)
    ), opened AS (
        INSERT INTO emails (id, customer_id, day)
        SELECT DISTINCT l.moves_to, e.customer_id, e.day
        FROM left_out AS l JOIN emails AS e ON e.id = l.email_id
        RETURNING id
    )
    UPDATE notices AS n SET email_id = o.id
    FROM left_out AS l JOIN opened AS o ON o.id = l.moves_to
    WHERE n.email_id = l.email_id AND n.service_id = l.service_id
    """,
)
_SENT = text("UPDATE emails SET sent_at = :now WHERE id = ANY(:ids) AND sent_at IS NULL")
_REFUSED = text("UPDATE emails SET refused_at = :now WHERE id = ANY(:ids) AND refused_at IS NULL")


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail with what it claims to say: service -> notices; and the amounts it names.

    Attributes:
        message: what to send, or why it cannot be written.
    """

    message: EmailMessage | MailAnswer
    notices: Mapping[uuid.UUID, Sequence[Notice]]
    announced: Sequence[Announced]

    @property
    def message_id(self) -> str | None:
        return None if isinstance(self.message, MailAnswer) else self.message["Message-ID"]


class RemindHandler(Sending):
    name = REMIND

    def __init__(
        self,
        mailer: Mailer,
        sender: str,
        links: Links,
        catalogue: CatalogueCache,
        clock: Clock,
        *,
        all_services: AllServices,
        policy: RetryPolicy,
    ) -> None:
        super().__init__(mailer, sender, links, catalogue, clock, policy=policy)
        self._all_services = all_services

    def begin(self, tx: Connection, claim: Claim) -> tuple[list[tuple[uuid.UUID, Letter]], Outcome]:
        now, catalogue = self._clock.now(), self._catalogue.current(tx)
        emails = tx.execute(_EMAILS, {"ids": claim.subjects}).all()
        ids = [email.id for email in emails]
        claimed: dict[uuid.UUID, dict[uuid.UUID, list[Notice]]] = {i: {} for i in ids}
        for row in tx.execute(_NOTICES, {"ids": ids}):
            of_email = claimed[row.email_id]
            of_email.setdefault(row.service_id, []).append(Notice.parse(row.kind))
        services = {s for told in claimed.values() for s in told}
        held: dict[uuid.UUID, Renewable] = {
            s.id: s for s in next_steps.load(tx, services, catalogue)
        }
        methods = _methods(tx, held.values())
        calls, failures = [], []
        left_out: dict[uuid.UUID, dict[uuid.UUID, DataError]] = {}
        for email in emails:
            notices = claimed[email.id]
            told = [held[s] for s in notices if held[s].view.desired is not ResourceState.ABSENT]
            links = self._links if len(told) <= MOST_ITEMS else None
            items, unwritten = _items(email, told, notices, methods, links, catalogue, now)
            if links is None and 0 < len(items) <= MOST_ITEMS:  # few enough to be named after all
                told = [service for service in told if service.id in items]
                items, _ = _items(email, told, notices, methods, self._links, catalogue, now)
            if items:
                mail = Mail(
                    id=email.id,
                    to=email.email,
                    language=email.language,
                    customer=email.customer_id,
                    brand=held[next(iter(items))].subsidiary.entity,
                    items=list(items.values()),
                    all_services=self._all_services(email.customer_id, email.begun_at or now),
                )
                message = self._compose(mail, now)
                said = {s: kinds for s, kinds in notices.items() if s not in unwritten}
                written = [service for service in told if service.id in items]
                amounts = _amounts(written, mail.items)
                calls.append((email.id, Letter(message, said, amounts)))
                if unwritten:
                    left_out[email.id] = unwritten
            elif unwritten:
                failures.append(_unwritable(email.id, unwritten))
        failed = {failure.subject for failure in failures}
        # One that cannot be written has not begun: what else is due on its day may still join it.
        tx.execute(_BEGIN, {"ids": [i for i in ids if i not in failed], "now": now})
        if left_out:
            _set_apart(tx, claim, left_out, claimed)
        undone = failed.union(subject for subject, _ in calls)
        # What it was to say is not true any more, or it was sent.
        done = [subject for subject in claim.subjects if subject not in undone]
        return calls, Outcome(done=done, failures=failures)

    def _compose(self, mail: Mail, now: datetime) -> EmailMessage | MailAnswer:
        try:
            return compose(mail, self._sender, at=now)
        except DataError as error:
            if error.code != "address_invalid":
                raise
            return MailAnswer(MailState.REFUSED, error.code, str(error))

    def record(
        self,
        tx: Connection,
        claim: Claim,
        answers: Sequence[tuple[uuid.UUID, Letter, MailAnswer]],
    ) -> Outcome:
        outcome = settle(
            claim, answers, lambda task, _, answer: meaning_of(task, answer, self._policy)
        )
        tasks = {task.subject: task for task in claim.tasks}
        sent = [(subject, letter) for subject, letter, a in answers if a.state is MailState.SENT]
        refused = [(subject, letter) for subject, letter, a in answers if a.is_undeliverable]
        if sent or refused:
            now, catalogue = self._clock.now(), self._catalogue.current(tx)
            services = {service for _, letter in (*sent, *refused) for service in letter.notices}
            # Services before e-mails, as whoever claims notices does.
            next_steps.lock(tx, services)
            # Now and not when it was claimed: what is announced is what the customer was sent.
            kept = [(id_, letter.message) for id_, letter in sent]
            keep(tx, [(i, m) for i, m in kept if isinstance(m, EmailMessage)], now)
            _announce(tx, (a for _, letter in sent for a in letter.announced), now=now)
            tx.execute(_SENT, {"ids": [subject for subject, _ in sent], "now": now})
            tx.execute(_REFUSED, {"ids": [subject for subject, _ in refused], "now": now})
            # What may not happen without a notice may happen now.
            next_steps.decide_again(tx, services, catalogue, now)
            history.record(
                tx,
                (
                    by_task(
                        tasks[subject], REMIND, service, "notice.sent",
                        {"kinds": list(map(str, said)), "message_id": letter.message_id},
                    )
                    for subject, letter in sent
                    for service, said in letter.notices.items()
                ),
            )  # fmt: skip
            why = {subject: answer.reason for subject, _, answer in answers}
            history.record(
                tx,
                (
                    by_task(
                        tasks[subject], REMIND, service, "notice.refused",
                        {"kinds": list(map(str, said)), "reason": why[subject]},
                    )
                    for subject, letter in refused
                    for service, said in letter.notices.items()
                ),
            )  # fmt: skip
        return outcome


def _unwritable(email_id: uuid.UUID, unwritten: Mapping[uuid.UUID, DataError]) -> Failure:
    """Nothing can be said in an e-mail; its task names the services, and why."""
    code = next(iter(unwritten.values())).code
    reasons = (f"service {service}: {first_line(error)}" for service, error in unwritten.items())
    return Failure(email_id, code, "; ".join(reasons))


def _set_apart(
    tx: Connection,
    claim: Claim,
    left_out: Mapping[uuid.UUID, Mapping[uuid.UUID, DataError]],
    claimed: Mapping[uuid.UUID, Mapping[uuid.UUID, Sequence[Notice]]],
) -> None:
    """Move what cannot be written out of e-mails that can be sent, into one of its own for each.

    Args:
        left_out: e-mail -> service -> why nothing can be written about it.
        claimed: e-mail -> service -> what was to be said.
    """
    rows = [
        LeftOut(email, service, derived_id("left out", email, *sorted(unwritten)))
        for email, unwritten in left_out.items()
        for service in unwritten
    ]
    _leave_out(tx, rows)
    ledger.enqueue(tx, REMIND, [(email, MAIL) for email in {row.moves_to for row in rows}])
    for unwritten in left_out.values():
        for error in unwritten.values():
            metrics.left_out.labels(error.code).inc()
    tasks = {task.subject: task for task in claim.tasks}
    history.record(
        tx,
        (
            by_task(
                tasks[email], REMIND, service, "notice.left_out",
                {
                    "kinds": list(map(str, claimed[email][service])),
                    "reason": error.code,
                    "error": first_line(error),
                },
            )
            for email, unwritten in left_out.items()
            for service, error in unwritten.items()
        ),
    )  # fmt: skip


def _items(
    email: Any,
    told: Iterable[Renewable],
    notices: Mapping[uuid.UUID, Sequence[Notice]],
    methods: Mapping[uuid.UUID, PaymentMethod],
    links: Links | None,
    catalogue: Catalogue,
    now: datetime,
) -> tuple[dict[uuid.UUID, Item], dict[uuid.UUID, DataError]]:
    """What an e-mail says about each service, and why it can say nothing about the others.

    Args:
        links: makes their links; None: they are to have none.
    """
    items: dict[uuid.UUID, Item] = {}
    unwritten: dict[uuid.UUID, DataError] = {}
    for service in told:
        payer = Payer(email.country, email.vat_number, methods.get(service.id))
        try:
            items[service.id] = item_of(
                service, notices[service.id], payer, links, catalogue, now,
                begun_at=email.begun_at,
            )  # fmt: skip
        except DataError as error:
            unwritten[service.id] = error
    return items, unwritten


def _amounts(services: Sequence[Renewable], items: Sequence[Item]) -> list[Announced]:
    return [
        Announced(service.id, service.paid_periods + 1, item.amount, item.amount.currency)
        for service, item in zip(services, items, strict=True)
        if item.amount is not None
    ]


def meaning_of(task: ClaimedTask, answer: MailAnswer, policy: RetryPolicy) -> Meaning:
    """What the mail server's answer means for a mail's task."""
    reason, detail = answer.reason or f"mail_{answer.state}", answer.detail or ""
    match answer.state:
        case MailState.SENT:
            return DONE
        case MailState.REFUSED:
            return Failure(task.subject, reason, detail, code_of(answer))
        case MailState.UNKNOWN | MailState.UNAVAILABLE:
            return policy.decide(task, reason, detail, code_of(answer))


def _methods(tx: Connection, services: Iterable[Renewable]) -> dict[uuid.UUID, PaymentMethod]:
    """Service -> what it is paid with."""
    paid_with = {s.id: s.payment_method_id for s in services if s.payment_method_id is not None}
    rows = tx.execute(_METHODS, {"ids": list(set(paid_with.values()))})
    found = {row.id: PaymentMethod(row.id, row.expires_on) for row in rows}
    return {service: found[method] for service, method in paid_with.items() if method in found}
