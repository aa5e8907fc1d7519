"""The task ``charge``: a payment request is paid; an order's is voided when every attempt was
declined, a renewal's stays open until its services end.

The attempt and its key are committed before the gateway is called. What may have happened is
asked about, by its key, before anything is tried again; a new key only after a decline.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from producers import history, ledger
from producers.history import Event, by_task
from producers.ledger import Claim, ClaimedTask, Failure, Outcome
from producers.renewals import next_steps
from producers.steps import CHARGE, CONVERGE, driver_place
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock, local_date
from schemas.rules.payable import PaymentMethod, obstacle
from schemas.tables import charges
from schemas.tables.bulk import Bulk, insert
from schemas.values import ChargeState, Money, RequestId
from workers.billing.charges import renewals, tax_of_day
from workers.billing.charges.attempt import (
    Attempt,
    ChargePolicy,
    Effect,
    last_word,
    meaning_of,
    next_attempt,
)
from workers.billing.charges.invoices import issue_invoices
from workers.billing.charges.numbering import Number
from workers.billing.charges.remembered import Remembered
from workers.billing.gateways.port import Gateway, GatewayAnswer, GatewayState, health_of
from workers.billing.payment_requests import store
from workers.outside.attempts import DONE, Meaning, attempt, settle
from workers.outside.health import Health
from workers.outside.texts import printable


@dataclass(frozen=True, slots=True)
class ChargeRow:
    """A charge as it begins."""

    key: uuid.UUID
    request_id: RequestId
    attempt: int
    amount: Money
    currency: str
    payment_method_id: uuid.UUID | None
    state: ChargeState = ChargeState.STARTED


@dataclass(frozen=True, slots=True)
class DecidedRow:
    """How a charge or a refund ended, as far as is known."""

    key: uuid.UUID
    state: ChargeState
    reference: str | None
    reason: str | None

    @classmethod
    def of(cls, key: str, answer: GatewayAnswer) -> "DecidedRow":
        state = ChargeState(answer.state) if answer.is_decided else ChargeState.UNKNOWN
        reference = printable(answer.reference) if answer.reference else None
        return cls(uuid.UUID(key), state, reference, answer.reason)


# The subject in a statement after the claim, locked in order.
_READ = text("""
    SELECT r.id, r.order_id, r.customer_id, r.subsidiary, r.currency, r.total,
           r.country, r.vat_number, r.stands_until, m.id AS method_id, m.token, m.expires_on,
           m.gateway, c.key, c.attempt, c.state, c.amount,
           r.order_id IS NOT NULL AND u.changed_at > r.created_at AS is_before_change,
           o.reason IS NOT DISTINCT FROM 'given_up' OR r.given_up_at IS NOT NULL AS given_up
    FROM (
        SELECT * FROM payment_requests WHERE id = ANY(:ids) AND state = 'open'
        ORDER BY id FOR NO KEY UPDATE
    ) AS r
    JOIN subsidiaries AS u ON u.code = r.subsidiary
    LEFT JOIN orders AS o ON o.id = r.order_id
    LEFT JOIN LATERAL (
        SELECT * FROM charges AS c WHERE c.request_id = r.id ORDER BY c.attempt DESC LIMIT 1
    ) AS c ON true
    LEFT JOIN payment_methods AS m ON m.id = CASE WHEN c.state IN ('started', 'unknown')
        THEN coalesce(c.payment_method_id, r.payment_method_id) ELSE r.payment_method_id END
    ORDER BY r.id
""")

_START = insert(ChargeRow, charges)

# Compare and set: a charge that was decided meanwhile stays as it is.
_DECIDE = Bulk(
    DecidedRow,
    """
    UPDATE charges AS c SET state = r.state, reference = r.reference, reason = r.reason,
        decided_at = CASE WHEN r.state = 'unknown' THEN NULL ELSE now() END
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        key uuid, state text, reference text, reason text)
    WHERE c.key = r.key AND c.state IN ('started', 'unknown')
    """,
)

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
    FROM orders AS o
    WHERE o.id = s.order_id AND s.id = ANY(ARRAY(
        SELECT service_id FROM request_lines
        WHERE request_id = ANY(:ids) AND period_number > 0))
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
        gateways: by the name that payment methods are stored with.
    """

    name = CHARGE
    at_once: int | None = None

    def __init__(
        self,
        gateways: Mapping[str, Gateway],
        catalogue: CatalogueCache,
        clock: Clock,
        *,
        policy: ChargePolicy,
    ) -> None:
        self.immediate = all(gateway.immediate for gateway in gateways.values())
        self._gateways = gateways
        self._catalogue = catalogue
        self._clock = clock
        self._policy = policy
        self._remembered = Remembered()

    def look(self, engine: Engine) -> None:
        self._remembered.look(engine)

    def after_record(self, engine: Engine, calls: Sequence[Attempt]) -> None:
        self._remembered.recorded(engine, [uuid.UUID(call.charge.key) for call in calls])

    def begin(
        self, tx: Connection, claim: Claim
    ) -> tuple[list[tuple[uuid.UUID, Attempt]], Outcome]:
        catalogue, now = self._catalogue.current(tx), self._clock.now()
        rows = tx.execute(_READ, {"ids": claim.subjects}).all()
        if retaxed := tax_of_day.apply(tx, rows, catalogue, now):
            again = {row.id: row for row in tx.execute(_READ, {"ids": retaxed})}
            rows = [again.get(row.id, row) for row in rows]
        open_attempts = []
        for row in rows:
            today = local_date(now, catalogue.subsidiary(row.subsidiary).timezone)
            method = PaymentMethod(row.method_id, row.expires_on) if row.method_id else None
            open_attempts.append(next_attempt(row, obstacle(method, today)))
        settled = [a for a in open_attempts if a.given_up and not a.in_doubt]
        _give_up(tx, settled, catalogue, now)
        attempts = [a for a in open_attempts if not a.given_up or a.in_doubt]
        lost = [a for a in attempts if a.answer_without_call is None and not self._has_gateway(a)]
        attempts = [a for a in attempts if a not in lost]
        fresh = [a.request_id for a in attempts if a.order_id is None and not a.in_doubt]
        if fresh:
            wanted = renewals.still_wanted(tx, fresh, catalogue, now)
            attempts = [a for a in attempts if a.request_id in wanted or a.request_id not in fresh]
        started = [_row(a) for a in attempts if not a.in_doubt]
        if started:
            _START(tx, started)
        undecided = {a.request_id for a in (*attempts, *lost)}
        done = [subject for subject in claim.subjects if subject not in undecided]
        failures = [
            Failure(a.request_id, "no_such_gateway", f"no gateway {a.gateway!r} is configured")
            for a in lost
        ]
        return [(a.request_id, a) for a in attempts], Outcome(done=done, failures=failures)

    def _has_gateway(self, attempt: Attempt) -> bool:
        return attempt.gateway is not None and attempt.gateway in self._gateways

    async def call(self, call: Attempt) -> GatewayAnswer:
        answer = call.answer_without_call
        if answer is not None or call.gateway is None:
            return answer or GatewayAnswer(GatewayState.UNAVAILABLE)
        return await attempt(
            self._gateways[call.gateway],
            call.charge,
            in_doubt=call.in_doubt,
            is_decided=lambda found: found.state is not GatewayState.NOT_FOUND or call.given_up,
        )

    def health(self, call: Attempt, answer: GatewayAnswer) -> Health | None:
        return None if call.answer_without_call is not None else health_of(answer)

    async def close(self) -> None:
        for gateway in self._gateways.values():
            await gateway.close()

    def record(
        self,
        tx: Connection,
        claim: Claim,
        answers: Sequence[tuple[uuid.UUID, Attempt, GatewayAnswer]],
    ) -> Outcome:
        tasks = {task.subject: task for task in claim.tasks}
        still_open = set(tx.execute(_LOCK, {"ids": sorted(tasks)}).scalars())
        answers = [
            (subject, attempt, last_word(tasks[subject], attempt, answer, self._policy))
            for subject, attempt, answer in answers
            if subject in still_open
        ]
        _decide(tx, answers)
        _lock_renewals(tx, answers)
        paid: list[tuple[ClaimedTask, Attempt]] = []
        voided: list[Attempt] = []
        declined: list[RequestId] = []

        def meaning(task: ClaimedTask, attempt: Attempt, answer: GatewayAnswer) -> Meaning:
            match meaning_of(task, attempt, answer, self._policy):
                case Effect.PAID:
                    paid.append((task, attempt))
                case Effect.VOIDED:
                    voided.append(attempt)
                case Effect.DECLINED:
                    declined.append(attempt.request_id)
                case decision:
                    return decision
            return DONE

        outcome = settle(claim, answers, meaning)
        outcome.done += [subject for subject in tasks if subject not in still_open]
        _tell(tx, tasks, answers)
        if voided:
            _void(tx, voided)
        if declined:
            renewals.decline(tx, declined, self._catalogue.current(tx), self._clock.now())
        if paid:
            self._settle(tx, paid)
        return outcome

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
        renewed: dict[uuid.UUID, ClaimedTask] = {
            a.request_id: task for task, a in paid if a.order_id is None
        }
        happened = renewals.settle(tx, renewed, catalogue, now) if renewed else []
        # Its counters are locked last. What cost nothing takes no number.
        numbers = issue_invoices(
            tx,
            [
                (
                    a.request_id,
                    a.subsidiary,
                    local_date(now, catalogue.subsidiary(a.subsidiary).timezone),
                )
                for _, a in paid
                if a.charge.amount.amount > 0
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
                        **_invoice(numbers, attempt.request_id),
                    },
                )
                for task, attempt in paid
                if attempt.order_id is not None
            ),
        )
        history.record(
            tx,
            (
                replace(event, detail={**(event.detail or {}), **_invoice(numbers, request_id)})
                for request_id, event in happened
            ),
        )
        # That of an order is told with its payment.
        history.record(
            tx,
            (
                by_task(task, CHARGE, id_, "invoice.issued", _invoice(numbers, id_))
                for id_, task in renewed.items()
                if id_ in numbers
            ),
        )


def _invoice(numbers: Mapping[uuid.UUID, Number], request_id: uuid.UUID) -> dict[str, str]:
    number = numbers.get(request_id)
    return {} if number is None else {"invoice": str(number)}


def _lock_renewals(
    tx: Connection, answers: Sequence[tuple[uuid.UUID, Attempt, GatewayAnswer]]
) -> None:
    """The services of all of them at once: paid and declined lock in one order."""
    decided = (GatewayState.SUCCEEDED, GatewayState.DECLINED)
    renewals = {a.request_id for _, a, g in answers if a.order_id is None and g.state in decided}
    if renewals:
        on = store.periods_on(tx, renewals)
        next_steps.lock(tx, {service for services in on.values() for service in services})


def _give_up(
    tx: Connection, settled: Sequence[Attempt], catalogue: Catalogue, now: datetime
) -> None:
    """A person gave these up, and none of their charges may have taken money."""
    orders = [attempt for attempt in settled if attempt.order_id is not None]
    if orders:
        _void(tx, orders)
    requests = [attempt.request_id for attempt in settled if attempt.order_id is None]
    if requests:
        renewals.decline(tx, requests, catalogue, now)
        history.record(
            tx, [Event(request, "charge.declined", {"reason": "given_up"}) for request in requests]
        )


def _void(tx: Connection, refused: Sequence[Attempt]) -> None:
    """No money will come: the request is closed, its order cancelled."""
    cancelled = tx.execute(_VOID, {"ids": [attempt.request_id for attempt in refused]})
    history.record(
        tx, [Event(row.id, "order.cancelled", {"reason": row.reason}) for row in cancelled]
    )


def _row(begun: Attempt) -> ChargeRow:
    charge = begun.charge
    return ChargeRow(
        uuid.UUID(charge.key),
        begun.request_id,
        begun.number,
        charge.amount,
        charge.amount.currency,
        begun.method_id,
    )


def _decide(tx: Connection, answers: Sequence[tuple[uuid.UUID, Attempt, GatewayAnswer]]) -> None:
    if answers:
        _DECIDE(tx, [DecidedRow.of(a.charge.key, answer) for _, a, answer in answers])


def _tell(
    tx: Connection,
    tasks: Mapping[uuid.UUID, ClaimedTask],
    answers: Sequence[tuple[uuid.UUID, Attempt, GatewayAnswer]],
) -> None:
    """What was not paid; what was is told with its invoice."""
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
