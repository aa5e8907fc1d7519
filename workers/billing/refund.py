"""The task ``refund``: a service that was given up gets its credit note and its money back.

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
from workers.billing.gateway import Gateway, GatewayAnswer, GatewayState, Refund
from workers.billing.invoices import credit_note_id, issue_credit_notes
from workers.runtime import RetryPolicy


@dataclass(frozen=True, slots=True)
class Attempt:
    service_id: uuid.UUID
    number: int
    in_doubt: bool
    refund: Refund


# Only what was given up is owed anything, whoever asks.
_LOCK = text("""
    SELECT id FROM services WHERE id = ANY(:ids) AND state = 'cancelled'
    ORDER BY id FOR NO KEY UPDATE
""")

_NOT_CREDITED = text("""
    SELECT DISTINCT l.service_id, l.invoice_id, i.subsidiary
    FROM invoice_lines AS l JOIN invoices AS i ON i.id = l.invoice_id
    WHERE l.service_id = ANY(:ids) AND NOT EXISTS (
        SELECT FROM credit_note_lines AS c
        WHERE c.invoice_id = l.invoice_id AND c.invoice_line = l.number)
    ORDER BY l.service_id
""")

_READ = text("""
    SELECT r.service_id, n.id AS credit_note_id, n.total, n.currency, c.key AS charge_key,
           f.key, f.attempt, f.state
    FROM json_to_recordset(CAST(:rows AS json)) AS r(service_id uuid, credit_note_id uuid)
    JOIN credit_notes AS n ON n.id = r.credit_note_id
    JOIN invoices AS i ON i.id = n.invoice_id
    JOIN charges AS c ON c.request_id = i.request_id AND c.state = 'succeeded'
    LEFT JOIN LATERAL (
        SELECT * FROM refunds AS f WHERE f.credit_note_id = n.id ORDER BY f.attempt DESC LIMIT 1
    ) AS f ON true
    WHERE n.total > 0 AND coalesce(f.state, '') <> 'succeeded'
    ORDER BY r.service_id
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
        given_up = list(tx.execute(_LOCK, {"ids": claim.subjects}).scalars())
        self._credit(tx, claim.subset(given_up))
        notes = [
            {"service_id": str(subject), "credit_note_id": str(credit_note_id(subject))}
            for subject in given_up
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
        owed = {attempt.service_id for attempt in attempts}
        done = [subject for subject in claim.subjects if subject not in owed]
        return [(attempt.service_id, attempt) for attempt in attempts], Outcome(done=done)

    def _credit(self, tx: Connection, claim: Claim) -> None:
        rows = tx.execute(_NOT_CREDITED, {"ids": claim.subjects}).all()
        if not rows:
            return
        catalogue, now = self._catalogue.current(tx), self._clock.now()
        numbers = issue_credit_notes(
            tx,
            [
                (
                    r.service_id,
                    r.invoice_id,
                    r.subsidiary,
                    local_date(now, catalogue.subsidiary(r.subsidiary).timezone),
                )
                for r in rows
            ],
            reason="not_delivered",
        )
        tasks = {task.subject: task for task in claim.tasks}
        history.record(
            tx,
            (
                by_task(
                    tasks[service_id], REFUND, service_id, "service.credited",
                    {"credit_note": str(number)},
                )
                for service_id, number in numbers.items()
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
    return Attempt(row.service_id, number, in_doubt, refund)
