"""The task ``send_link``: a new link, for a customer whose old one cannot be opened any more.

It leads to all services. One that is sent again after a crash has the same Message-ID and the same
link. An address that does not take it ends it: nothing hangs on it, and whoever asked may not be
the customer.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage

from sqlalchemy import Connection, text

from producers import history
from producers.history import by_task
from producers.intake.customer import subject_of
from producers.ledger import Claim, ClaimedTask, Outcome
from producers.steps import SEND_LINK
from schemas.errors import DataError
from workers.outside.attempts import DONE, Meaning, settle
from workers.reminders.mail import Mail, compose_link
from workers.reminders.remind import meaning_of
from workers.reminders.sending import Sending
from workers.reminders.smtp import MailAnswer, MailState

_ASKED = text("""
    SELECT e.id, e.begun_at, c.id AS customer_id, c.subsidiary, c.email, c.language
    FROM link_emails AS e JOIN customers AS c ON c.id = e.customer_id
    WHERE e.id = ANY(:ids) AND e.sent_at IS NULL ORDER BY e.id
""")
_BEGIN = text("UPDATE link_emails SET begun_at = :now WHERE id = ANY(:ids) AND begun_at IS NULL")
_SENT = text("UPDATE link_emails SET sent_at = :now WHERE id = ANY(:ids) AND sent_at IS NULL")


@dataclass(frozen=True, slots=True)
class Letter:
    """What to send, or why it cannot be written."""

    customer: str
    message: EmailMessage | MailAnswer

    @property
    def message_id(self) -> str | None:
        return None if isinstance(self.message, MailAnswer) else self.message["Message-ID"]


class SendLinkHandler(Sending):
    name = SEND_LINK

    def begin(self, tx: Connection, claim: Claim) -> tuple[list[tuple[uuid.UUID, Letter]], Outcome]:
        now, catalogue = self._clock.now(), self._catalogue.current(tx)
        calls = []
        for row in tx.execute(_ASKED, {"ids": claim.subjects}):
            mail = Mail(
                id=row.id,
                to=row.email,
                language=row.language,
                customer=row.customer_id,
                brand=catalogue.subsidiary(row.subsidiary).entity,
                items=(),
                all_services=self._links.account_url(row.customer_id, row.begun_at or now),
            )
            try:
                message: EmailMessage | MailAnswer = compose_link(mail, self._sender, at=now)
            except DataError as error:
                message = MailAnswer(MailState.REFUSED, error.code, str(error))
            calls.append((row.id, Letter(row.customer_id, message)))
        called = [subject for subject, _ in calls]
        tx.execute(_BEGIN, {"ids": called, "now": now})
        return calls, Outcome(done=[s for s in claim.subjects if s not in set(called)])

    def record(
        self,
        tx: Connection,
        claim: Claim,
        answers: Sequence[tuple[uuid.UUID, Letter, MailAnswer]],
    ) -> Outcome:
        tasks = {task.subject: task for task in claim.tasks}
        sent = [one for one in answers if one[2].state is MailState.SENT]
        refused = [one for one in answers if one[2].is_undeliverable]
        if sent:
            tx.execute(_SENT, {"ids": [s for s, _, _ in sent], "now": self._clock.now()})
        history.record(
            tx,
            [
                by_task(
                    tasks[subject], SEND_LINK, subject_of(letter.customer), "link.sent",
                    {"message_id": letter.message_id},
                )
                for subject, letter, _ in sent
            ]
            + [
                by_task(
                    tasks[subject], SEND_LINK, subject_of(letter.customer), "link.refused",
                    {"reason": answer.reason},
                )
                for subject, letter, answer in refused
            ],
        )  # fmt: skip

        def meaning(task: ClaimedTask, _call: Letter, answer: MailAnswer) -> Meaning:
            return DONE if answer.is_undeliverable else meaning_of(task, answer, self._policy)

        return settle(claim, answers, meaning)
