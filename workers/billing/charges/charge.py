"""The task ``charge``: a payment request is paid; an order's is voided when every attempt was
declined, a renewal's stays open until its services end.

The attempt and its key are committed before the gateway is called. What may have happened is
asked about, by its key, before anything is tried again; a new key only after a decline.
"""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.history import Event, by_task
from producers.ledger import Claim, ClaimedTask, Outcome, Retry
from producers.renewals import next_steps
from producers.steps import CHARGE, CONVERGE, driver_place
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock, local_date
from schemas.tables.bulk import rows_as_json
from schemas.values import ChargeState, Money, derived_id
from workers.billing.charges import renewals as renewed
from workers.billing.charges.invoices import issue_invoices
from workers.billing.gateways.port import Charge, Gateway, GatewayAnswer, GatewayState
from workers.billing.payment_requests import requests
from workers.runtime.runtime import RetryPolicy


@dataclass(frozen=True, slots=True)
class Attempt:
    """A charge under way: a new one, or one that has to be asked about first."""

    request_id: uuid.UUID
    order_id: uuid.UUID | None
    """None: it is of a renewal."""
    subsidiary: str
    number: int
    in_doubt: bool
    given_up: bool
    """A person cancelled the order: nothing more is tried, but what was is asked about."""
    method_id: uuid.UUID | None
    method_expired: bool
    charge: Charge

    @property
    def subject(self) -> uuid.UUID:
        """Whose history it belongs to."""
        return self.order_id or self.request_id


# The subject in a statement after the claim, locked in order.
_READ = text("""
    SELECT r.id, r.order_id, r.customer_id, r.subsidiary, r.currency, r.total,
           m.id AS method_id, m.token, m.expires_on, c.key, c.attempt, c.state,
           c.amount, o.reason IS NOT DISTINCT FROM 'given_up' AS given_up
    FROM (
        SELECT * FROM payment_requests WHERE id = ANY(:ids) AND state = 'open'
        ORDER BY id FOR NO KEY UPDATE
    ) AS r
    LEFT JOIN orders AS o ON o.id = r.order_id
    LEFT JOIN LATERAL (
        SELECT * FROM charges AS c WHERE c.request_id = r.id ORDER BY c.attempt DESC LIMIT 1
    ) AS c ON true
    LEFT JOIN payment_methods AS m ON m.id = CASE WHEN c.state IN ('started', 'unknown')
        THEN coalesce(c.payment_method_id, r.payment_method_id) ELSE r.payment_method_id END
    ORDER BY r.id
""")

_START = text("""
    INSERT INTO charges (key, request_id, attempt, amount, currency, payment_method_id, state)
    SELECT key, request_id, attempt, amount, currency, payment_method_id, 'started'
    FROM json_to_recordset(CAST(:rows AS json)) AS r(key uuid, request_id uuid, attempt smallint,
        amount bigint, currency text, payment_method_id uuid)
""")

# Compare and set: a charge that was decided meanwhile stays as it is.
_DECIDE = text("""
    UPDATE charges AS c SET state = r.state, reference = r.reference, reason = r.reason,
        decided_at = CASE WHEN r.state = 'unknown' THEN NULL ELSE now() END
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        key uuid, state text, reference text, reason text)
    WHERE c.key = r.key AND c.state IN ('started', 'unknown')
""")

_LOCK = text("""
    SELECT id FROM payment_requests WHERE id = ANY(:ids) AND state = 'open'
    ORDER BY id FOR NO KEY UPDATE
""")

_PAID = text("UPDATE payment_requests SET state = 'paid', closed_at = now() WHERE id = ANY(:ids)")

_PAID_SERVICES = text("""
    UPDATE services AS s
    SET paid_periods = s.paid_periods + 1, state = 'delivering',
        -- Priced by a process of the release before, it has none yet.
        payment_method_id = coalesce(s.payment_method_id, o.payment_method_id),
        -- Here, and not when it was priced: what was accepted meanwhile is seen by now.
        agreed_version = greatest(s.agreed_version, (
            SELECT max(a.version) FROM plans AS p JOIN agreements AS a ON a.contract = p.contract
            WHERE p.code = s.plan AND a.customer_id = s.customer_id)),
        desired = CASE WHEN o.reason = 'given_up' THEN 'absent' ELSE 'active' END
    FROM request_lines AS l, orders AS o
    WHERE l.request_id = ANY(:ids) AND l.period_number > 0 AND s.id = l.service_id
      AND o.id = s.order_id
    RETURNING s.id, s.universe, s.driver
""")

_ORDERS = text("UPDATE orders SET state = 'paid' WHERE id = ANY(:ids) AND state = 'priced'")

_VOID = text("""
    WITH voided AS (
        UPDATE payment_requests SET state = 'voided', closed_at = now()
        WHERE id = ANY(:ids) AND state = 'open' RETURNING id, order_id
    ), released AS (
        UPDATE request_lines AS l SET released_at = now()
        FROM voided WHERE l.request_id = voided.id
    ), services AS (
        UPDATE services AS s SET state = 'cancelled'
        FROM voided WHERE s.order_id = voided.order_id AND s.state = 'pending'
    )
    UPDATE orders AS o SET state = 'cancelled', ended_at = now(),
        reason = coalesce(o.reason, 'payment_declined')
    FROM voided WHERE o.id = voided.order_id AND o.state = 'priced'
    RETURNING o.id, o.reason
""")


class ChargeHandler:
    """
    Args:
        delays: seconds to wait after each decline; when they are used up, the request is voided.
        policy: for attempts whose outcome is unknown, and for a gateway that is away.
    """

    name = CHARGE

    def __init__(
        self,
        gateway: Gateway,
        catalogue: CatalogueCache,
        clock: Clock,
        *,
        delays: Sequence[float],
        policy: RetryPolicy,
    ) -> None:
        self.immediate = gateway.immediate
        self.gateway = gateway
        self._catalogue = catalogue
        self._clock = clock
        self._delays = delays
        self._policy = policy

    def begin(
        self, tx: Connection, claim: Claim
    ) -> tuple[list[tuple[uuid.UUID, Attempt]], Outcome]:
        rows = tx.execute(_READ, {"ids": claim.subjects}).all()
        catalogue, now = self._catalogue.current(tx), self._clock.now()
        open_attempts = [
            _next_attempt(row, local_date(now, catalogue.subsidiary(row.subsidiary).timezone))
            for row in rows
        ]
        settled = [a for a in open_attempts if a.given_up and not a.in_doubt]
        if settled:
            _void(tx, settled)
        attempts = [a for a in open_attempts if not a.given_up or a.in_doubt]
        fresh = [a.request_id for a in attempts if a.order_id is None and not a.in_doubt]
        if fresh:
            wanted = renewed.still_wanted(tx, fresh, catalogue, now)
            attempts = [a for a in attempts if a.request_id in wanted or a.request_id not in fresh]
        started = [a for a in attempts if not a.in_doubt]
        if started:
            fields = [
                {
                    "key": a.charge.key,
                    "request_id": a.request_id,
                    "attempt": a.number,
                    "amount": a.charge.amount.amount,
                    "currency": a.charge.amount.currency,
                    "payment_method_id": a.method_id,
                }
                for a in started
            ]
            tx.execute(_START, {"rows": rows_as_json(fields)})
        open_requests = {a.request_id for a in attempts}
        done = [subject for subject in claim.subjects if subject not in open_requests]
        return [(a.request_id, a) for a in attempts], Outcome(done=done)

    def call(self, call: Attempt) -> GatewayAnswer:
        if call.charge.amount.amount == 0:
            return GatewayAnswer(GatewayState.SUCCEEDED, reason="nothing_to_pay")
        if call.method_id is None:
            return GatewayAnswer(GatewayState.DECLINED, reason="payment_method_missing")
        if call.in_doubt:
            found = self.gateway.find_charge(call.charge.key)
            # "Not found" may precede a late arrival: try again, under the same key.
            if found.state is not GatewayState.NOT_FOUND or call.given_up:
                return found
        elif call.method_expired:
            return GatewayAnswer(GatewayState.DECLINED, reason="payment_method_expired")
        return self.gateway.charge(call.charge)

    def record(
        self,
        tx: Connection,
        claim: Claim,
        answers: Sequence[tuple[uuid.UUID, Attempt, GatewayAnswer]],
    ) -> Outcome:
        tasks = {task.subject: task for task in claim.tasks}
        still_open = set(tx.execute(_LOCK, {"ids": sorted(tasks)}).scalars())
        outcome = Outcome(done=[subject for subject in tasks if subject not in still_open])
        answers = [
            (subject, attempt, self._last_word(tasks[subject], attempt, answer))
            for subject, attempt, answer in answers
            if subject in still_open
        ]
        _decide(tx, answers)
        _lock_renewals(tx, answers)
        paid, refused, declined = [], [], []
        for subject, attempt, answer in answers:
            task = tasks[subject]
            match answer.state:
                case GatewayState.SUCCEEDED:
                    paid.append((task, attempt))
                    outcome.done.append(subject)
                case GatewayState.DECLINED if attempt.order_id is None:
                    # When it is tried again is for the next step of its services to say.
                    declined.append(attempt.request_id)
                    outcome.done.append(subject)
                case GatewayState.DECLINED if attempt.given_up or attempt.number > len(
                    self._delays
                ):
                    refused.append(attempt)
                    outcome.done.append(subject)
                case GatewayState.DECLINED:
                    outcome.retries.append(
                        Retry(
                            subject,
                            "declined",
                            answer.reason or "",
                            delay=self._delays[attempt.number - 1],
                            counts=False,
                        )
                    )
                case state:
                    outcome.add(
                        self._policy.decide(
                            task, f"gateway_{state}", answer.reason or "", random.random()
                        )
                    )
        history.record(
            tx,
            (
                by_task(
                    tasks[subject],
                    CHARGE,
                    attempt.subject,
                    f"charge.{answer.state}",
                    {"attempt": attempt.number, "reason": answer.reason},
                )
                for subject, attempt, answer in answers
                if answer.state is not GatewayState.SUCCEEDED
            ),
        )
        if refused:
            _void(tx, refused)
        if declined:
            renewed.decline(tx, declined, self._catalogue.current(tx), self._clock.now())
        if paid:
            self._settle(tx, paid)
        return outcome

    def _last_word(
        self, task: ClaimedTask, attempt: Attempt, answer: GatewayAnswer
    ) -> GatewayAnswer:
        """A person gave the order up, and the gateway has not heard of its charge however often
        it was asked: no money will come. Should it come after all, the audit tells."""
        asked_enough = task.attempts + 1 >= self._policy.attempts
        if attempt.given_up and asked_enough and answer.state is GatewayState.NOT_FOUND:
            return GatewayAnswer(GatewayState.DECLINED, reason="not_found")
        return answer

    def _settle(self, tx: Connection, paid: list[tuple[ClaimedTask, Attempt]]) -> None:
        """Money was taken: services may be delivered, and the law gets its invoice."""
        request_ids = [attempt.request_id for _, attempt in paid]
        tx.execute(_PAID, {"ids": request_ids})
        orders = [attempt for _, attempt in paid if attempt.order_id is not None]
        if orders:
            tx.execute(_ORDERS, {"ids": [attempt.order_id for attempt in orders]})
            parameters = {"ids": [attempt.request_id for attempt in orders]}
            services = tx.execute(_PAID_SERVICES, parameters).all()
            places = [(s.id, driver_place(s.universe, s.driver)) for s in services]
            ledger.enqueue(tx, CONVERGE, places)
        catalogue, now = self._catalogue.current(tx), self._clock.now()
        renewals = {a.request_id: task for task, a in paid if a.order_id is None}
        happened = renewed.settle(tx, renewals, catalogue, now) if renewals else []
        # Its counters are locked last.
        numbers = issue_invoices(
            tx,
            [
                (
                    a.request_id,
                    a.subsidiary,
                    local_date(now, catalogue.subsidiary(a.subsidiary).timezone),
                )
                for _, a in paid
            ],
        )
        history.record(
            tx,
            (
                by_task(
                    task,
                    CHARGE,
                    attempt.subject,
                    "order.paid",
                    {
                        "amount": str(attempt.charge.amount),
                        "charge": attempt.number,
                        "invoice": str(numbers[attempt.request_id]),
                    },
                )
                for task, attempt in paid
                if attempt.order_id is not None
            ),
        )
        history.record(
            tx,
            (
                event._replace(detail={**(event.detail or {}), "invoice": str(numbers[request_id])})
                for request_id, event in happened
            ),
        )


def _lock_renewals(
    tx: Connection, answers: Sequence[tuple[uuid.UUID, Attempt, GatewayAnswer]]
) -> None:
    """The services of all of them at once: paid and declined lock in one order."""
    decided = (GatewayState.SUCCEEDED, GatewayState.DECLINED)
    renewals = {a.request_id for _, a, g in answers if a.order_id is None and g.state in decided}
    if renewals:
        on = requests.periods_on(tx, renewals)
        next_steps.lock(tx, {service for services in on.values() for service in services})


def _void(tx: Connection, refused: Sequence[Attempt]) -> None:
    """No money will come: the request is closed, its order cancelled."""
    cancelled = tx.execute(_VOID, {"ids": [attempt.request_id for attempt in refused]})
    history.record(
        tx, [Event(row.id, "order.cancelled", {"reason": row.reason}) for row in cancelled]
    )


def _next_attempt(row: Any, today: date) -> Attempt:
    """What to do about an open request, by its last charge."""
    in_doubt = row.state in (ChargeState.STARTED, ChargeState.UNKNOWN)
    number = row.attempt if in_doubt else (row.attempt or 0) + 1
    amount = Money(row.total, row.currency)
    # From business facts: a restored database derives the same key for the same attempt.
    key = row.key if in_doubt else derived_id("charge", row.id, amount, number)
    return Attempt(
        request_id=row.id,
        order_id=row.order_id,
        subsidiary=row.subsidiary,
        number=number,
        in_doubt=in_doubt,
        given_up=row.given_up,
        method_id=row.method_id,
        method_expired=row.expires_on is not None and row.expires_on < today,
        charge=Charge(str(key), amount, row.token or "", row.customer_id),
    )


def _decide(tx: Connection, answers: Sequence[tuple[uuid.UUID, Attempt, GatewayAnswer]]) -> None:
    rows = [
        {
            "key": attempt.charge.key,
            "state": answer.state
            if answer.state in (GatewayState.SUCCEEDED, GatewayState.DECLINED)
            else ChargeState.UNKNOWN,
            "reference": answer.reference,
            "reason": answer.reason,
        }
        for _, attempt, answer in answers
    ]
    if rows:
        tx.execute(_DECIDE, {"rows": rows_as_json(rows)})
