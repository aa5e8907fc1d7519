"""The task ``refund``: what was paid and cannot be given gets its credit note and its money back.

Its subject is a service that was given up before it was delivered, or the payment request of a
renewal that was paid when a service on it had begun to end.

Like a charge: the attempt and its key first, the call with no transaction open, and what is in
doubt asked about before it is tried again.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from producers import history
from producers.history import by_task
from producers.ledger import Claim, ClaimedTask, Failure, Outcome
from producers.steps import REFUND
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock, local_date
from schemas.tables import refunds
from schemas.tables.bulk import Bulk, insert
from schemas.values import ChargeState, Money, derived_id
from workers.billing.charges.charge import DecidedRow
from workers.billing.charges.invoices import GivenBack, credit_note_id, issue_credit_notes
from workers.billing.gateways.port import (
    Gateway,
    GatewayAnswer,
    GatewayState,
    Refund,
    health_of,
    said,
)
from workers.outside.attempts import DONE, Meaning, attempt, settle
from workers.outside.health import Health
from workers.runtime.retries import RetryPolicy


@dataclass(frozen=True, slots=True)
class Attempt:
    """A refund under way.

    Attributes:
        gateway: where its charge was made.
        in_doubt: it was begun before, and how it ended is not known.
    """

    subject: uuid.UUID
    credit_note_id: uuid.UUID
    number: int
    in_doubt: bool
    gateway: str
    refund: Refund


@dataclass(frozen=True, slots=True)
class _Subject:
    subject: uuid.UUID
    credit_note_id: uuid.UUID


@dataclass(frozen=True, slots=True)
class RefundRow:
    """A refund as it begins."""

    key: uuid.UUID
    credit_note_id: uuid.UUID
    attempt: int
    charge_key: uuid.UUID
    amount: Money
    currency: str
    state: ChargeState = ChargeState.STARTED


# Held until the note is written, so that no line is credited twice.
_LOCK = [
    text("SELECT id FROM services WHERE id = ANY(:ids) AND state = 'cancelled'"
         " ORDER BY id FOR NO KEY UPDATE"),
    text("SELECT id FROM payment_requests WHERE id = ANY(:ids) AND state = 'paid'"
         " ORDER BY id FOR NO KEY UPDATE"),
]  # fmt: skip

_NOT_CREDITED = text("""
    SELECT o.subject, o.reason, o.invoice_id, i.subsidiary, array_agg(o.number) AS lines
    FROM (
        SELECT l.service_id AS subject, 'not_delivered' AS reason, l.invoice_id, l.number
        FROM services AS s JOIN invoice_lines AS l ON l.service_id = s.id
        WHERE s.id = ANY(:ids) AND s.state = 'cancelled'
        UNION ALL
        SELECT r.request_id, 'ended', i.id, r.number
        FROM request_lines AS r JOIN invoices AS i ON i.request_id = r.request_id
        WHERE r.request_id = ANY(:ids) AND r.refused_at IS NOT NULL
    ) AS o
    JOIN invoices AS i ON i.id = o.invoice_id
    WHERE NOT EXISTS (
        SELECT FROM credit_note_lines AS c
        WHERE c.invoice_id = o.invoice_id AND c.invoice_line = o.number)
    GROUP BY o.subject, o.reason, o.invoice_id, i.subsidiary
    ORDER BY o.subject
""")

_READ = Bulk(
    _Subject,
    """
    SELECT r.subject, n.id AS credit_note_id, n.total, n.currency, c.key AS charge_key,
           coalesce(m.gateway, 'default') AS gateway, f.key, f.attempt, f.state
    FROM json_to_recordset(CAST(:rows AS json)) AS r(subject uuid, credit_note_id uuid)
    JOIN credit_notes AS n ON n.id = r.credit_note_id
    JOIN invoices AS i ON i.id = n.invoice_id
    JOIN charges AS c ON c.request_id = i.request_id AND c.state = 'succeeded'
    LEFT JOIN payment_methods AS m ON m.id = c.payment_method_id
    LEFT JOIN LATERAL (
        SELECT * FROM refunds AS f WHERE f.credit_note_id = n.id ORDER BY f.attempt DESC LIMIT 1
    ) AS f ON true
    WHERE n.total > 0 AND coalesce(f.state, '') <> 'succeeded'
    ORDER BY r.subject
    """,
)

_START = insert(RefundRow, refunds)

_DECIDE = Bulk(
    DecidedRow,
    """
    UPDATE refunds AS f SET state = r.state, reference = r.reference, reason = r.reason,
        decided_at = CASE WHEN r.state = 'unknown' THEN NULL ELSE now() END
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        key uuid, state text, reference text, reason text)
    WHERE f.key = r.key AND f.state IN ('started', 'unknown')
    """,
)


class RefundHandler:
    name = REFUND
    at_once: int | None = None

    def __init__(
        self,
        gateways: Mapping[str, Gateway],
        catalogue: CatalogueCache,
        clock: Clock,
        *,
        policy: RetryPolicy,
    ) -> None:
        self.immediate = all(gateway.immediate for gateway in gateways.values())
        self._gateways = gateways
        self._catalogue = catalogue
        self._clock = clock
        self._policy = policy

    def begin(
        self, tx: Connection, claim: Claim
    ) -> tuple[list[tuple[uuid.UUID, Attempt]], Outcome]:
        held = [
            subject
            for statement in _LOCK
            for subject in tx.execute(statement, {"ids": claim.subjects}).scalars()
        ]
        self._credit(tx, claim.subset(held))
        rows = _READ(tx, [_Subject(subject, credit_note_id(subject)) for subject in held]).all()
        owed = [_next_attempt(row) for row in rows]
        attempts = [attempt for attempt in owed if attempt.gateway in self._gateways]
        failures = [
            Failure(a.subject, "no_such_gateway", f"no gateway {a.gateway!r} is configured")
            for a in owed
            if a.gateway not in self._gateways
        ]
        started = [_row(attempt) for attempt in attempts if not attempt.in_doubt]
        if started:
            _START(tx, started)
        subjects = {attempt.subject for attempt in owed}
        done = [subject for subject in claim.subjects if subject not in subjects]
        calls = [(attempt.subject, attempt) for attempt in attempts]
        return calls, Outcome(done=done, failures=failures)

    def _credit(self, tx: Connection, claim: Claim) -> None:
        rows = tx.execute(_NOT_CREDITED, {"ids": claim.subjects}).all()
        if not rows:
            return
        catalogue, now = self._catalogue.current(tx), self._clock.now()
        numbers = issue_credit_notes(
            tx,
            [
                GivenBack(
                    subject=row.subject,
                    invoice_id=row.invoice_id,
                    lines=row.lines,
                    reason=row.reason,
                    subsidiary=row.subsidiary,
                    on=local_date(now, catalogue.subsidiary(row.subsidiary).timezone),
                )
                for row in rows
            ],
        )
        tasks = {task.subject: task for task in claim.tasks}
        history.record(
            tx,
            (
                by_task(
                    tasks[subject], REFUND, subject, "service.credited",
                    {"credit_note": str(number)},
                )
                for subject, number in numbers.items()
            ),
        )  # fmt: skip

    async def call(self, call: Attempt) -> GatewayAnswer:
        return await attempt(
            self._gateways[call.gateway],
            call.refund,
            in_doubt=call.in_doubt,
            is_decided=lambda found: found.state is not GatewayState.NOT_FOUND,
        )

    def health(self, call: Attempt, answer: GatewayAnswer) -> Health | None:
        return health_of(answer)

    async def close(self) -> None:
        for gateway in self._gateways.values():
            await gateway.close()

    def record(
        self,
        tx: Connection,
        claim: Claim,
        answers: Sequence[tuple[uuid.UUID, Attempt, GatewayAnswer]],
    ) -> Outcome:
        _DECIDE(tx, [DecidedRow.of(a.refund.key, answer) for _, a, answer in answers])
        tasks = {task.subject: task for task in claim.tasks}
        history.record(
            tx,
            (
                by_task(
                    tasks[subject], REFUND, subject, f"refund.{answer.state}",
                    {"amount": str(attempt.refund.amount), "reason": answer.reason},
                )
                for subject, attempt, answer in answers
            ),
        )  # fmt: skip
        return settle(
            claim, answers, lambda task, _, answer: meaning_of(task, answer, self._policy)
        )


def meaning_of(task: ClaimedTask, answer: GatewayAnswer, policy: RetryPolicy) -> Meaning:
    """What the gateway's answer means for a refund's task."""
    match answer.state:
        case GatewayState.SUCCEEDED:
            return DONE
        case GatewayState.DECLINED:
            return policy.decide(task, "refund_declined", said(answer), answer.reason)
        case state:
            return policy.decide(task, f"gateway_{state}", said(answer), answer.reason)


def _next_attempt(row: Any) -> Attempt:
    in_doubt = row.state in (ChargeState.STARTED, ChargeState.UNKNOWN)
    number = row.attempt if in_doubt else (row.attempt or 0) + 1
    key = row.key if in_doubt else derived_id("refund", row.credit_note_id, number)
    refund = Refund(str(key), str(row.charge_key), Money(row.total, row.currency))
    return Attempt(row.subject, row.credit_note_id, number, in_doubt, row.gateway, refund)


def _row(begun: Attempt) -> RefundRow:
    refund = begun.refund
    return RefundRow(
        uuid.UUID(refund.key),
        begun.credit_note_id,
        begun.number,
        uuid.UUID(refund.charge_key),
        refund.amount,
        refund.amount.currency,
    )
