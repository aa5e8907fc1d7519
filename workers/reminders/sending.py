"""What every step that sends an e-mail shares: how it is sent, and what is told of the server."""

from email.message import EmailMessage
from typing import Protocol

from producers.intake.links import Links
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from workers.outside.health import Health
from workers.reminders.smtp import MailAnswer, Mailer, health_of
from workers.runtime.retries import RetryPolicy


class Letter(Protocol):
    @property
    def message(self) -> EmailMessage | MailAnswer:
        """What to send, or why it cannot be written."""
        ...


class Sending:
    """The base of handlers whose calls are e-mails; what they write down is their own."""

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
        self.at_once = mailer.at_once
        self._mailer = mailer
        self._sender = sender
        self._links = links
        self._catalogue = catalogue
        self._clock = clock
        self._policy = policy

    async def call(self, call: Letter) -> MailAnswer:
        if isinstance(call.message, MailAnswer):
            return call.message
        return await self._mailer.perform(call.message)

    def health(self, call: Letter, answer: MailAnswer) -> Health | None:
        return None if isinstance(call.message, MailAnswer) else health_of(answer)

    async def close(self) -> None:
        await self._mailer.close()
