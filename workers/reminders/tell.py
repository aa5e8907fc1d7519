"""The task ``tell``: what became of the services of an order that was paid, in one e-mail.

Its subject is the order. What it tells is written down before it is sent, so that a crash sends it
again under the same Message-ID, and that no service is told of twice. What is delivered after it
was begun goes into the next one. It is sent at any hour: the customer has just ordered.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import Any

from sqlalchemy import Connection, text

from producers import history
from producers.history import by_task
from producers.intake.links import Links, Purpose
from producers.ledger import Claim, ClaimedTask, Outcome
from producers.steps import TELL
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock, local_date
from schemas.errors import DataError
from schemas.tables import order_emails
from schemas.tables.bulk import insert
from schemas.values import DELIVERED, RenewalMode, ServiceState, derived_id
from workers.outside.attempts import AGAIN, DONE, Meaning, settle
from workers.reminders.all_services import AllServices
from workers.reminders.keeping import keep
from workers.reminders.mail import MOST_ITEMS, Item, Mail, Situation, compose
from workers.reminders.remind import meaning_of
from workers.reminders.sending import Sending
from workers.reminders.smtp import MailAnswer, Mailer, MailState
from workers.runtime.retries import RetryPolicy

_ORDERS = text("""
    SELECT o.id, c.id AS customer_id, c.email, c.language
    FROM orders AS o JOIN customers AS c ON c.id = o.customer_id
    WHERE o.id = ANY(:ids) ORDER BY o.id
""")
_TOLD = text("""
    SELECT id, order_id, number, delivered, given_up, begun_at,
        sent_at IS NULL AND given_up_at IS NULL AS is_open
    FROM order_emails WHERE order_id = ANY(:ids) ORDER BY order_id, number
""")
_SERVICES = text("""
    SELECT id, order_id, customer_id, subsidiary, brand, plan, configuration, details,
        state, mode, expires_at
    FROM services WHERE order_id = ANY(:ids) ORDER BY order_id, plan, id
""")
_SENT = text("UPDATE order_emails SET sent_at = :now WHERE id = ANY(:ids) AND sent_at IS NULL")
_REFUSED = text("""
    UPDATE order_emails SET refused_at = :now WHERE id = ANY(:ids) AND refused_at IS NULL
""")

_ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class OrderEmail:
    """An e-mail as it is begun, before it is sent.

    Attributes:
        number: of the order's e-mails; the first is 1.
        delivered, given_up: the services that it tells of.
    """

    id: uuid.UUID
    order_id: uuid.UUID
    number: int
    delivered: list[uuid.UUID]
    given_up: list[uuid.UUID]
    begun_at: datetime


_begin = insert(OrderEmail, order_emails)


@dataclass(frozen=True, slots=True)
class Letter:
    """What to send, or why it cannot be written.

    Attributes:
        is_last: nothing else of the order is to be told now.
    """

    email: OrderEmail
    message: EmailMessage | MailAnswer
    is_last: bool


class TellHandler(Sending):
    name = TELL

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
        ids = {"ids": claim.subjects}
        emails: dict[uuid.UUID, list[Any]] = {}
        for row in tx.execute(_TOLD, ids):
            emails.setdefault(row.order_id, []).append(row)
        services: dict[uuid.UUID, dict[uuid.UUID, Any]] = {}
        for row in tx.execute(_SERVICES, ids):
            services.setdefault(row.order_id, {})[row.id] = row
        calls: list[tuple[uuid.UUID, Letter]] = []
        begun = []
        for order in tx.execute(_ORDERS, ids).all():
            mine = services.get(order.id, {})
            email, is_new, is_last = _email_of(order.id, emails.get(order.id, []), mine, now)
            if email is None:
                continue
            if is_new:
                begun.append(email)
            message = self._compose(order, email, mine, catalogue, now)
            calls.append((order.id, Letter(email, message, is_last)))
        if begun:
            _begin(tx, begun)
        told = {order for order, _ in calls}
        return calls, Outcome(done=[order for order in claim.subjects if order not in told])

    def _compose(
        self,
        order: Any,
        email: OrderEmail,
        services: Mapping[uuid.UUID, Any],
        catalogue: Catalogue,
        now: datetime,
    ) -> EmailMessage | MailAnswer:
        told = [*email.delivered, *email.given_up]
        links = self._links if len(told) <= MOST_ITEMS else None
        given_up = set(email.given_up)
        items = [
            _item(services[id_], id_ in given_up, links, catalogue, email.begun_at) for id_ in told
        ]
        subsidiary = catalogue.subsidiary(services[told[0]].subsidiary)
        mail = Mail(
            id=email.id,
            to=order.email,
            language=order.language,
            customer=order.customer_id,
            brand=subsidiary.entity,
            items=items,
            all_services=self._all_services(order.customer_id, email.begun_at),
        )
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
        now = self._clock.now()
        tasks = {task.subject: task for task in claim.tasks}
        sent = [one for one in answers if one[2].state is MailState.SENT]
        refused = [one for one in answers if one[2].is_undeliverable]
        for statement, ended in ((_SENT, sent), (_REFUSED, refused)):
            if ended:
                tx.execute(statement, {"ids": [c.email.id for _, c, _ in ended], "now": now})
        kept = [(call.email.id, call.message) for _, call, _ in sent]
        keep(tx, [(i, m) for i, m in kept if isinstance(m, EmailMessage)], now)
        history.record(
            tx,
            (
                by_task(tasks[order], TELL, order, "delivery.sent", _detail(call))
                for order, call, _ in sent
            ),
        )
        history.record(
            tx,
            (
                by_task(
                    tasks[order], TELL, order, "delivery.refused",
                    _detail(call) | {"reason": answer.reason},
                )
                for order, call, answer in refused
            ),
        )  # fmt: skip

        def meaning(task: ClaimedTask, call: Letter, answer: MailAnswer) -> Meaning:
            meant = meaning_of(task, answer, self._policy)
            return AGAIN if meant is DONE and not call.is_last else meant

        return settle(claim, answers, meaning)


def _email_of(
    order: uuid.UUID, emails: Sequence[Any], services: Mapping[uuid.UUID, Any], now: datetime
) -> tuple[OrderEmail | None, bool, bool]:
    """The e-mail to send now: the one that was begun and did not end, or a new one.

    Args:
        emails: those of the order that there are.
        services: its services, by their ids.

    Returns:
        The e-mail (None: there is nothing to tell), whether it is new, and whether nothing else is
        to be told now.
    """
    told = {id_ for row in emails for id_ in (*row.delivered, *row.given_up)}
    untold = [service for service in services.values() if service.id not in told]
    delivered = [s.id for s in untold if s.state in DELIVERED]
    given_up = [s.id for s in untold if s.state == ServiceState.CANCELLED]
    for row in emails:
        if row.is_open:
            email = OrderEmail(row.id, order, row.number, row.delivered, row.given_up, row.begun_at)
            return email, False, not delivered and not given_up
    if not delivered and not given_up:
        return None, False, True
    number = len(emails) + 1
    id_ = derived_id("order e-mail", order, number)
    return OrderEmail(id_, order, number, delivered, given_up, now), True, True


def _item(
    service: Any, is_given_up: bool, links: Links | None, catalogue: Catalogue, at: datetime
) -> Item:
    """What an e-mail says about a service.

    Args:
        links: makes its link; None: it is to have none.
        at: when the e-mail was begun.
    """
    zone = catalogue.subsidiary(service.subsidiary).timezone
    last_day = local_date(at if is_given_up else service.expires_at, zone)
    urls = {}
    renews = (
        service.mode == RenewalMode.AUTOMATIC
        and (service.brand, service.subsidiary) in catalogue.rollouts
    )
    if links is not None and renews and not is_given_up:
        stop = {"command": "stop", "customer": service.customer_id, "services": [str(service.id)]}
        urls["stop"] = links.url(Purpose.STOP, stop, at)
    return Item(
        situation=Situation.UNDELIVERED if is_given_up else Situation.DELIVERED,
        name=catalogue.known_plan(service.plan).name,
        detail=service.configuration.get("domain") or "",
        last_day=last_day if is_given_up else last_day - _ONE_DAY,
        amount=None,
        periods=1,
        on=None,
        links=urls,
        facts={} if is_given_up else service.details or {},
    )


def _detail(call: Letter) -> dict[str, Any]:
    email = call.email
    message_id = None if isinstance(call.message, MailAnswer) else call.message["Message-ID"]
    return {
        "message_id": message_id,
        "delivered": len(email.delivered),
        "given_up": len(email.given_up),
    }
