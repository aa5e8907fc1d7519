"""The client for an event loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, Self, TypeVar

from producers.client import calls, commands
from producers.client.amqp import EXCHANGE, Amqp, Sent
from producers.client.calls import Call, Done, Json, Placed
from producers.client.errors import NotDone
from producers.client.http import AsyncHttp
from producers.client.models import (
    Catalogue,
    CreditNote,
    Customer,
    Forecast,
    Invoice,
    InvoiceRow,
    Order,
    Quote,
    Service,
    ServiceRow,
    Upcoming,
)
from producers.client.retrying import async_retrying
from producers.client.settings import BATCH, Settings, no_publishing, not_offered, result_of

T = TypeVar("T")


class AsyncClient:
    """As :class:`Client`, for an event loop: what is called is awaited.

    Over AMQP a thread serves the connection; many calls may be under way at once.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 30.0,
        attempts: int = 5,
        exchange: str = EXCHANGE,
    ) -> None:
        self._settings = Settings(url, key, timeout, attempts, exchange)
        self._http = AsyncHttp(self._settings) if self._settings.is_http else None
        self._amqp = None if self._settings.is_http else Amqp(url, exchange)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close connections; what was not answered is not waited for."""
        if self._http is not None:
            await self._http.close()
        if self._amqp is not None:
            await asyncio.to_thread(self._amqp.close)

    async def place(self, order: Json | bytes) -> Placed:
        """Place an order, whose ``key`` upstream chose; it may be placed again as it is.

        Raises:
            NotDone: it was refused, or rejected; the class says why.
            ClientError: it was not answered, see :mod:`producers.client.errors`.
        """
        return await self._ask(calls.place(order))

    async def stop(self, customer: str, service: str) -> Done:
        """A service ends when the periods paid for it end."""
        return await self._ask(commands.stop(customer, service))

    async def resume(self, customer: str, service: str) -> Done:
        """A stopped service gets its former mode back."""
        return await self._ask(commands.resume(customer, service))

    async def mode(
        self, customer: str, service: str, mode: Literal["automatic", "manual", "stop"]
    ) -> Done:
        """How a service renews."""
        return await self._ask(commands.mode(customer, service, mode))

    async def renew(
        self, customer: str, service: str, expires_on: str, contracts: Sequence[Json] = ()
    ) -> Done:
        """Renew a service and charge it now.

        Args:
            expires_on: the day on which it expired when its customer agreed, as ``2026-12-24``.
            contracts: that the customer accepted, as ``{"contract": "web", "version": 3}``.
        """
        return await self._ask(commands.renew(customer, service, expires_on, contracts))

    async def accept(self, customer: str, contracts: Sequence[Json]) -> Done:
        """The customer accepted contracts, as ``{"contract": "web", "version": 3}``."""
        return await self._ask(commands.accept(customer, contracts))

    async def payment_method(
        self,
        customer: str,
        token: str,
        *,
        expires: str | None = None,
        gateway: str | None = None,
        services: Sequence[str] | None = None,
    ) -> Done:
        """Another payment method, for all of a customer's services, or for some.

        Args:
            expires: the month until whose end it can be charged, as ``2028-06``.
        """
        call = commands.payment_method(customer, token, expires, gateway, services)
        return await self._ask(call)

    async def change_customer(self, customer: str, **changes: Any) -> Done:
        """Change what is named: ``email``, ``language``, ``country``, ``vat_number``, ``name``,
        ``company``, ``address``; None erases one of the last four."""
        return await self._ask(commands.change_customer(customer, changes))

    async def order(self, key: str, *, wait: int = 0) -> Order:
        """An order and what became of it.

        Args:
            wait: seconds for which to wait for its end.
        """
        return await self._ask(calls.get(Order, "orders", key, wait=wait or None))

    async def customer(self, id: str) -> Customer:
        """What is known of a customer."""
        return await self._ask(calls.get(Customer, "customers", id))

    async def service(self, id: str) -> Service:
        """A service: what is next, and why."""
        return await self._ask(calls.get(Service, "services", id))

    async def quote(self, service: str) -> Quote:
        """What renewing a service now costs."""
        return await self._ask(calls.get(Quote, "services", service, "quote"))

    async def invoice(self, number: str) -> Invoice:
        return await self._ask(calls.get(Invoice, "invoices", number))

    async def credit_note(self, number: str) -> CreditNote:
        return await self._ask(calls.get(CreditNote, "credit-notes", number))

    async def catalogue(self, **query: Any) -> Catalogue:
        """Plans on sale, with their prices."""
        return await self._ask(calls.get(Catalogue, "catalogue", **query))

    async def forecast(self, **query: Any) -> Forecast:
        """What falls due, and what becomes of it."""
        return await self._ask(calls.get(Forecast, "forecast", **query))

    async def place_many(self, orders: Sequence[Json | bytes]) -> list[Placed | NotDone]:
        """As :meth:`Client.place_many`."""
        found: list[Placed | NotDone] = []
        for start in range(0, len(orders), BATCH):
            part = orders[start : start + BATCH]
            if self._http is not None:
                placed = await self._ask(calls.place_many(part))
                found += placed
            else:
                found += await asyncio.gather(*map(self._place_or_error, part))
        return found

    async def publish(self, document: Json | bytes, kind: str) -> None:
        """As :meth:`Client.publish`."""
        if (amqp := self._amqp) is None:
            raise no_publishing()

        async def attempt() -> None:
            await self._wait(amqp.send(calls.encoded(document), kind, wants_answer=False))

        await async_retrying(self._settings.attempts, kind.startswith("order."))(attempt)

    def services(self, **filters: Any) -> AsyncIterator[ServiceRow]:
        """All services that fit, part by part."""
        return self._pages(ServiceRow, "services", **filters)

    def upcoming(self, customer: str) -> AsyncIterator[Upcoming]:
        """What a customer will be charged, when, and with which tax."""
        return self._pages(Upcoming, "customers", customer, "upcoming")

    def invoices(self, customer: str) -> AsyncIterator[InvoiceRow]:
        """A customer's invoices, the newest first."""
        return self._pages(InvoiceRow, "customers", customer, "invoices")

    async def _pages(self, kind: type[T], *path: str, **query: Any) -> AsyncIterator[T]:
        cursor = None
        while True:
            page = await self._ask(calls.page(kind, *path, **query, cursor=cursor))
            for item in page.items:
                yield item
            if not (cursor := page.next):
                return

    async def _place_or_error(self, order: Json | bytes) -> Placed | NotDone:
        try:
            return await self.place(order)
        except NotDone as error:
            return error

    async def _ask(self, call: Call[T]) -> T:
        http, amqp = self._http, self._amqp
        if http is not None:
            return await async_retrying(self._settings.attempts, call.is_safe)(http.ask, call)
        if call.document is None or amqp is None:
            raise not_offered(call)
        document = call.document

        async def send() -> T:
            return result_of(call, await self._wait(amqp.send(document, call.kind)))

        return await async_retrying(self._settings.attempts, call.is_safe_document)(send)

    async def _wait(self, sent: Sent) -> Json:
        try:
            future = asyncio.wrap_future(sent.future)
            return await asyncio.wait_for(future, self._settings.timeout)
        except TimeoutError:
            raise sent.give_up() from None
