"""The task ``refund``: what was paid and cannot be given gets its credit note and its money back.

Its subject is a service that was given up before it was delivered, or the payment request of a
renewal that was paid when a service on it had begun to end.

Like a charge: the attempt and its key first, the call with no transaction open, and what is in
doubt asked about before it is tried again.
"""

import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from producers import history
from producers.history import by_task
from producers.ledger import Claim, Failure, Outcome
from producers.steps import REFUND
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock, local_date
from schemas.values import ChargeState, Money, derived_id
from workers.billing.charges.invoices import GivenBack, credit_note_id, issue_credit_notes
from workers.billing.gateways.port import Gateway, GatewayAnswer, GatewayState, Refund
from workers.runtime.runtime import RetryPolicy


@dataclass(frozen=True, slots=True)
class Attempt:
    subject: uuid.UUID
    number: int
    in_doubt: bool
    refund: Refund


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

_READ = text("""
    SELECT r.subject, n.id AS credit_note_id, n.total, n.currency, c.key AS charge_key,
           f.key, f.attempt, f.state
    FROM json_to_recordset(CAST(:rows AS json)) AS r(subject uuid, credit_note_id uuid)
    JOIN credit_notes AS n ON n.id = r.credit_note_id
    JOIN invoices AS i ON i.id = n.invoice_id
    JOIN charges AS c ON c.request_id = i.request_id AND c.state = 'succeeded'
    LEFT JOIN LATERAL (
        SELECT * FROM refunds AS f WHERE f.credit_note_id = n.id ORDER BY f.attempt DESC LIMIT 1
    ) AS f ON true
    WHERE n.total > 0 AND coalesce(f.state, '') <> 'succeeded'
    ORDER BY r.subject
""")

_START = text("""
    INSERT INTO refunds (key, credit_note_id, attempt, charge_key, amount, currency, state)
    SELECT key, credit_note_id, attempt, charge_key, amount, currency, 'started'
    FROM json_to_recordset(CAST(:rows AS json)) AS r(key uuid, credit_note_id uuid,
        attempt smallint, charge_key uuid, amount bigint, currency text)
""")

_DECIDE = text("""
    UPDATE refunds AS f SET state = r.state, reference = r.reference, reason = r.reason,
        decided_at = CASE WHEN r.state = 'unknown' THEN NULL ELSE now() END
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        key uuid, state text, reference text, reason text)
    WHERE f.key = r.key AND f.state IN ('started', 'unknown')
""")


class RefundHandler:
    name = REFUND

    def __init__(
        self, gateway: Gateway, catalogue: CatalogueCache, clock: Clock, *, policy: RetryPolicy
    ) -> None:
        self.immediate = gateway.immediate
        self._gateway = gateway
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
        notes = [
            {"subject": str(subject), "credit_note_id": str(credit_note_id(subject))}
            for subject in held
        ]
        rows = tx.execute(_READ, {"rows": json.dumps(notes)}).all()
        attempts = [_next_attempt(row) for row in rows]
        started = [
            {
                "key": attempt.refund.key,
                "credit_note_id": str(row.credit_note_id),
                "attempt": attempt.number,
                "charge_key": attempt.refund.charge_key,
                "amount": attempt.refund.amount.amount,
                "currency": attempt.refund.amount.currency,
            }
            for row, attempt in zip(rows, attempts, strict=True)
            if not attempt.in_doubt
        ]
        if started:
            tx.execute(_START, {"rows": json.dumps(started)})
        owed = {attempt.subject for attempt in attempts}
        done = [subject for subject in claim.subjects if subject not in owed]
        return [(attempt.subject, attempt) for attempt in attempts], Outcome(done=done)

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

    def call(self, call: Attempt) -> GatewayAnswer:
        if call.in_doubt:
            found = self._gateway.find_refund(call.refund.key)
            if found.state is not GatewayState.NOT_FOUND:
                return found
        return self._gateway.refund(call.refund)

    def record(
        self,
        tx: Connection,
        claim: Claim,
        answers: Sequence[tuple[uuid.UUID, Attempt, GatewayAnswer]],
    ) -> Outcome:
        tasks = {task.subject: task for task in claim.tasks}
        outcome = Outcome()
        decided = [
            {
                "key": attempt.refund.key,
                "state": answer.state
                if answer.state in (GatewayState.SUCCEEDED, GatewayState.DECLINED)
                else ChargeState.UNKNOWN,
                "reference": answer.reference,
                "reason": answer.reason,
            }
            for _, attempt, answer in answers
        ]
        tx.execute(_DECIDE, {"rows": json.dumps(decided)})
        for subject, _, answer in answers:
            match answer.state:
                case GatewayState.SUCCEEDED:
                    outcome.done.append(subject)
                case GatewayState.DECLINED:
                    outcome.failures.append(
                        Failure(subject, "refund_declined", answer.reason or "")
                    )
                case state:
                    outcome.add(
                        self._policy.decide(
                            tasks[subject], f"gateway_{state}", answer.reason or "", random.random()
                        )
                    )
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
        return outcome


def _next_attempt(row: Any) -> Attempt:
    in_doubt = row.state in (ChargeState.STARTED, ChargeState.UNKNOWN)
    number = row.attempt if in_doubt else (row.attempt or 0) + 1
    key = row.key if in_doubt else derived_id("refund", row.credit_note_id, number)
    refund = Refund(str(key), str(row.charge_key), Money(row.total, row.currency))
    return Attempt(row.subject, number, in_doubt, refund)
