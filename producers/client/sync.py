"""The client that waits."""

from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Literal, Self, TypeVar

from producers.client import calls, commands
from producers.client.amqp import EXCHANGE, Amqp
from producers.client.calls import Call, Done, Json, Placed
from producers.client.errors import ClientError, NotDone
from producers.client.http import Http
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
from producers.client.retrying import retrying
from producers.client.settings import BATCH, Settings, no_publishing, not_offered, result_of

T = TypeVar("T")


class Client:
    """Places orders, sends commands and asks; each call waits for its answer. For several threads.

    Args:
        url: ``https://…``, with a key; or ``amqps://USER:PASSWORD@HOST/VHOST``, or several of
            these separated by commas: then only what goes in is offered, and nothing to read.
        key: over HTTP, as ``autorenew keys create`` shows it.
        timeout: seconds for each attempt, from the connection to the answer.
        attempts: of what is safe to try again.
        exchange: over AMQP; ``intake.USER`` where that was set up.

    Raises:
        ValueError: the URL or the key cannot be used.
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
        self._http = Http(self._settings) if self._settings.is_http else None
        self._amqp = None if self._settings.is_http else Amqp(url, exchange)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections; what was not answered is not waited for."""
        if self._http is not None:
            self._http.close()
        if self._amqp is not None:
            self._amqp.close()

    def place(self, order: Json | bytes) -> Placed:
        """Place an order, whose ``key`` upstream chose; it may be placed again as it is.

        Raises:
            NotDone: it was refused, or rejected; the class says why.
            ClientError: it was not answered, see :mod:`producers.client.errors`.
        """
        return self._ask(calls.place(order))

    def stop(self, customer: str, service: str) -> Done:
        """A service ends when the periods paid for it end."""
        return self._ask(commands.stop(customer, service))

    def resume(self, customer: str, service: str) -> Done:
        """A stopped service gets its former mode back."""
        return self._ask(commands.resume(customer, service))

    def mode(
        self, customer: str, service: str, mode: Literal["automatic", "manual", "stop"]
    ) -> Done:
        """How a service renews."""
        return self._ask(commands.mode(customer, service, mode))

    def renew(
        self, customer: str, service: str, expires_on: str, contracts: Sequence[Json] = ()
    ) -> Done:
        """Renew a service and charge it now.

        Args:
            expires_on: the day on which it expired when its customer agreed, as ``2026-12-24``.
            contracts: that the customer accepted, as ``{"contract": "web", "version": 3}``.
        """
        return self._ask(commands.renew(customer, service, expires_on, contracts))

    def accept(self, customer: str, contracts: Sequence[Json]) -> Done:
        """The customer accepted contracts, as ``{"contract": "web", "version": 3}``."""
        return self._ask(commands.accept(customer, contracts))

    def payment_method(
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
        return self._ask(call)

    def change_customer(self, customer: str, **changes: Any) -> Done:
        """Change what is named: ``email``, ``language``, ``country``, ``vat_number``, ``name``,
        ``company``, ``address``; None erases one of the last four."""
        return self._ask(commands.change_customer(customer, changes))

    def order(self, key: str, *, wait: int = 0) -> Order:
        """An order and what became of it.

        Args:
            wait: seconds for which to wait for its end.
        """
        return self._ask(calls.get(Order, "orders", key, wait=wait or None))

    def customer(self, id: str) -> Customer:
        """What is known of a customer."""
        return self._ask(calls.get(Customer, "customers", id))

    def service(self, id: str) -> Service:
        """A service: what is next, and why."""
        return self._ask(calls.get(Service, "services", id))

    def quote(self, service: str) -> Quote:
        """What renewing a service now costs."""
        return self._ask(calls.get(Quote, "services", service, "quote"))

    def invoice(self, number: str) -> Invoice:
        return self._ask(calls.get(Invoice, "invoices", number))

    def credit_note(self, number: str) -> CreditNote:
        return self._ask(calls.get(CreditNote, "credit-notes", number))

    def catalogue(self, **query: Any) -> Catalogue:
        """Plans on sale, with their prices."""
        return self._ask(calls.get(Catalogue, "catalogue", **query))

    def forecast(self, **query: Any) -> Forecast:
        """What falls due, and what becomes of it."""
        return self._ask(calls.get(Forecast, "forecast", **query))

    def place_many(self, orders: Sequence[Json | bytes]) -> list[Placed | NotDone]:
        """Place orders, many at a time.

        Returns:
            For each order, in their order, that it was placed, or the error that says why not.

        Raises:
            ClientError: some may have been placed: place all of them again.
        """
        if self._http is not None:
            parts = [orders[i : i + BATCH] for i in range(0, len(orders), BATCH)]
            return [answer for part in parts for answer in self._ask(calls.place_many(part))]
        return [
            answer
            for start in range(0, len(orders), BATCH)
            for answer in self._place_part(orders[start : start + BATCH])
        ]

    def publish(self, document: Json | bytes, kind: str) -> None:
        """Over AMQP: have the broker keep a document, and do not wait for what becomes of it.

        Args:
            kind: such as ``order.v1``.

        Raises:
            Uncertain: the broker may have it.
        """
        amqp = self._need_amqp()

        def attempt() -> None:
            sent = amqp.send(calls.encoded(document), kind, wants_answer=False)
            try:
                sent.future.result(self._settings.timeout)
            except FutureTimeout:
                raise sent.give_up() from None

        retrying(self._settings.attempts, is_safe=kind.startswith("order."))(attempt)

    def services(self, **filters: Any) -> Iterator[ServiceRow]:
        """All services that fit, part by part."""
        return self._pages(ServiceRow, "services", **filters)

    def upcoming(self, customer: str) -> Iterator[Upcoming]:
        """What a customer will be charged, when, and with which tax."""
        return self._pages(Upcoming, "customers", customer, "upcoming")

    def invoices(self, customer: str) -> Iterator[InvoiceRow]:
        """A customer's invoices, the newest first."""
        return self._pages(InvoiceRow, "customers", customer, "invoices")

    def _pages(self, kind: type[T], *path: str, **query: Any) -> Iterator[T]:
        cursor = None
        while True:
            page = self._ask(calls.page(kind, *path, **query, cursor=cursor))
            yield from page.items
            if not (cursor := page.next):
                return

    def _ask(self, call: Call[T]) -> T:
        http = self._http
        if http is not None:
            return retrying(self._settings.attempts, call.is_safe)(lambda: http.ask(call))
        if call.document is None:
            raise not_offered(call)
        return retrying(self._settings.attempts, call.is_safe_document)(lambda: self._send(call))

    def _send(self, call: Call[T]) -> T:
        assert call.document is not None
        sent = self._need_amqp().send(call.document, call.kind)
        try:
            return result_of(call, sent.future.result(self._settings.timeout))
        except FutureTimeout:
            raise sent.give_up() from None

    def _place_part(self, orders: Sequence[Json | bytes]) -> list[Placed | NotDone]:
        """Over AMQP, all of them under way at once; those that get lost go out again."""
        amqp, found = self._need_amqp(), dict[int, Placed | NotDone]()
        wanted = [calls.place(order) for order in orders]

        def attempt() -> None:
            sent = {
                n: amqp.send(call.document or b"", call.kind)
                for n, call in enumerate(wanted)
                if n not in found
            }
            failed: ClientError | None = None
            for n, one in sent.items():
                try:
                    found[n] = result_of(wanted[n], one.future.result(self._settings.timeout))
                except NotDone as error:
                    found[n] = error
                except FutureTimeout:
                    failed = one.give_up()
                except ClientError as error:
                    failed = error
            if failed is not None:
                raise failed

        retrying(self._settings.attempts, is_safe=True)(attempt)
        return [found[n] for n in range(len(orders))]

    def _need_amqp(self) -> Amqp:
        if self._amqp is None:
            raise no_publishing()
        return self._amqp
