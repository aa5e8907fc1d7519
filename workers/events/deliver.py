"""The step ``deliver``: an event is sent to one endpoint.

An endpoint that fails for too long is disabled, and so is one that answers 410; its deliveries are
dropped as they come up, and can be replayed.
"""

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, text

from monitoring import metrics
from producers import history
from producers.history import Event
from producers.ledger import Claim, ClaimedTask, Outcome
from producers.steps import DELIVER
from schemas.events import Kind
from schemas.tables.bulk import Bulk
from workers.events.sender import Letter, Sender, WebhookAnswer, WebhookState
from workers.outside.attempts import DONE, Meaning, settle
from workers.outside.health import GOOD, Health
from workers.runtime.retries import RetryPolicy

log = logging.getLogger(__name__)

# Of one endpoint, in each process.
AT_ONCE = 10

_READ = text("""
    SELECT d.id, d.endpoint_id, d.event, d.body, d.ended_at IS NULL AS is_open,
        e.state = 'enabled' OR d.kind = :test AS is_wanted, e.name, e.url, e.secret,
        CASE WHEN e.previous_until > now() THEN e.previous_secret END AS previous_secret
    FROM webhook_deliveries AS d JOIN webhook_endpoints AS e ON e.id = d.endpoint_id
    WHERE d.id = ANY(:ids)
""")
_DROP = text("""
    UPDATE webhook_deliveries SET ended_at = now(), outcome = 'dropped', body = NULL
    WHERE id = ANY(:ids) AND ended_at IS NULL
""")
_BEGIN = text("""
    UPDATE webhook_deliveries SET attempts = attempts + 1, tried_at = now() WHERE id = ANY(:ids)
""")
_LOCK = text("SELECT id FROM webhook_endpoints WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE")
_WORKS = text("""
    UPDATE webhook_endpoints SET delivered_at = now(), failing_since = NULL WHERE id = ANY(:ids)
""")
_FAILS = text("""
    UPDATE webhook_endpoints SET failing_since = coalesce(failing_since, now())
    WHERE id = ANY(:ids)
""")
_DISABLE = text("""
    UPDATE webhook_endpoints SET state = 'disabled', reason = :reason, changed_at = now()
    WHERE id = ANY(:ids) AND state = 'enabled'
      AND (NOT :is_late OR failing_since < now() - CAST(:patience AS interval))
    RETURNING id, name, failing_since
""")


@dataclass(frozen=True, slots=True)
class _EndedRow:
    """
    Attributes:
        outcome: None: it is tried again.
    """

    id: uuid.UUID
    answer: str
    outcome: str | None


# One that was replayed while it was sent stays open: its task is ready again.
_END = Bulk(
    _EndedRow,
    """
    UPDATE webhook_deliveries AS d SET answer = r.answer, outcome = r.outcome,
        ended_at = CASE WHEN r.outcome IS NOT NULL THEN now() END,
        body = CASE WHEN r.outcome IS NULL THEN d.body END
    FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, answer text, outcome text)
    WHERE d.id = r.id AND d.tried_at IS NOT NULL
    """,
)


@dataclass(frozen=True, slots=True)
class Call:
    """
    Attributes:
        endpoint: its id.
    """

    endpoint: uuid.UUID
    letter: Letter


class DeliverHandler:
    """Subject: a delivery."""

    name = DELIVER
    immediate = False
    at_once: int | None = AT_ONCE

    def __init__(self, sender: Sender, *, policy: RetryPolicy, disable_after: timedelta) -> None:
        """
        Args:
            disable_after: an endpoint that has failed for so long is disabled.
        """
        self._sender = sender
        self._policy = policy
        self._disable_after = disable_after

    def begin(self, tx: Connection, claim: Claim) -> tuple[list[tuple[uuid.UUID, Call]], Outcome]:
        parameters = {"ids": claim.subjects, "test": Kind.WEBHOOK_TEST}
        rows = {row.id: row for row in tx.execute(_READ, parameters)}
        calls = [(row.id, _call(row)) for row in rows.values() if row.is_open and row.is_wanted]
        unwanted = [row.id for row in rows.values() if row.is_open and not row.is_wanted]
        if unwanted:
            tx.execute(_DROP, {"ids": unwanted})
        if calls:
            tx.execute(_BEGIN, {"ids": [id_ for id_, _ in calls]})
        called = {id_ for id_, _ in calls}
        return calls, Outcome(done=[id_ for id_ in claim.subjects if id_ not in called])

    async def call(self, call: Call) -> WebhookAnswer:
        return await self._sender.send(call.letter)

    def health(self, call: Call, answer: WebhookAnswer) -> Health | None:
        match answer.state:
            case WebhookState.DELIVERED:
                return GOOD
            case WebhookState.GONE:
                return None
            case _:
                return Health(False, answer.words or answer.code, answer.retry_after)

    async def close(self) -> None:
        await self._sender.close()

    def record(
        self,
        tx: Connection,
        claim: Claim,
        answers: Sequence[tuple[uuid.UUID, Call, WebhookAnswer]],
    ) -> Outcome:
        tx.execute(_LOCK, {"ids": list({call.endpoint for _, call, _ in answers})})
        _END(tx, [_ended(id_, answer) for id_, _, answer in answers])
        by_state: dict[WebhookState, set[uuid.UUID]] = {}
        for _, call, answer in answers:
            by_state.setdefault(answer.state, set()).add(call.endpoint)
        works = by_state.pop(WebhookState.DELIVERED, set())
        gone = by_state.pop(WebhookState.GONE, set())
        fails = set().union(*by_state.values()) - works - gone
        if works:
            tx.execute(_WORKS, {"ids": list(works)})
        if gone:
            self._disable(tx, gone, "gone")
        if fails:
            tx.execute(_FAILS, {"ids": list(fails)})
            self._disable(tx, fails, "failing")
        return settle(claim, answers, self._meaning)

    def _disable(self, tx: Connection, endpoints: set[uuid.UUID], reason: str) -> None:
        parameters = {
            "ids": list(endpoints),
            "reason": reason,
            "is_late": reason == "failing",
            "patience": self._disable_after,
        }
        for row in tx.execute(_DISABLE, parameters).all():
            since = row.failing_since.isoformat() if row.failing_since else None
            detail = {"reason": reason, "failing_since": since}
            history.record(tx, [Event(row.id, "webhook.disabled", detail)])
            metrics.webhooks_disabled.labels(reason).inc()
            log.error(
                "the webhook %s is disabled (%s): once it works, `autorenew webhooks enable` and"
                " `replay`", row.name, reason,
            )  # fmt: skip

    def _meaning(self, task: ClaimedTask, _call: Call, answer: WebhookAnswer) -> Meaning:
        if answer.state in (WebhookState.DELIVERED, WebhookState.GONE):
            return DONE
        return self._policy.decide(
            task, f"webhook_{answer.state}", answer.words or answer.code, answer.code
        )


def _call(row: Any) -> Call:
    keys = [key for key in (row.secret, row.previous_secret) if key is not None]
    letter = Letter(row.name, row.url, str(row.event), row.body.encode(), keys)
    return Call(row.endpoint_id, letter)


def _ended(id_: uuid.UUID, answer: WebhookAnswer) -> _EndedRow:
    outcomes = {WebhookState.DELIVERED: "delivered", WebhookState.GONE: "dropped"}
    said = answer.code if answer.code.startswith("HTTP") else answer.words or answer.code
    return _EndedRow(id_, said, outcomes.get(answer.state))
