"""Wiring: which handlers a process runs, on which broker, against which outside world."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dramatiq

from producers.intake.links import Links
from producers.steps import BILLING, ORDERS, QUEUES, REMINDERS
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.errors import ConfigurationError
from schemas.settings import Settings
from schemas.values import Universe
from workers.billing.charges.charge import ChargeHandler
from workers.billing.charges.refund import RefundHandler
from workers.billing.ends import SuspendHandler, TerminateHandler
from workers.billing.gateways.http import HttpGateway
from workers.billing.gateways.instant import InstantGateway
from workers.billing.gateways.port import Gateway
from workers.billing.payment_requests.handlers import RequestHandler, WithdrawHandler
from workers.orders.price import PriceHandler
from workers.provisioning.converge import ConvergeHandler
from workers.provisioning.drivers.http import HttpDriver
from workers.provisioning.drivers.instant import InstantDriver
from workers.provisioning.drivers.port import Driver
from workers.reminders.mail import check_sender
from workers.reminders.remind import RemindHandler
from workers.reminders.smtp import InstantMailer, Mailer, SmtpMailer
from workers.runtime.runtime import Handler, RetryPolicy, Runtime

# Instead of a URL: answers at once, in this process. For benchmarks.
INSTANT = "instant:"


def check_queues(queues: Iterable[str]) -> list[str]:
    """Refuse a queue that does not exist, in one clear line."""
    chosen = list(dict.fromkeys(queues))
    unknown = [queue for queue in chosen if queue not in QUEUES]
    if unknown or not chosen:
        raise ConfigurationError(
            f"no queue {', '.join(unknown) or '(none given)'}; there are {', '.join(QUEUES)}"
        )
    return chosen


def handlers(settings: Settings, queues: Iterable[str], clock: Clock) -> dict[str, list[Handler]]:
    """The handlers of each queue. Only what a queue needs is configured: billing holds no
    infrastructure credential, provisioning no gateway's."""
    policy = RetryPolicy(
        settings.retry_base_seconds, settings.retry_cap_seconds, settings.retry_attempts
    )
    catalogue = CatalogueCache()
    chosen: dict[str, list[Handler]] = {}
    for queue in check_queues(queues):
        if queue == ORDERS:
            chosen[queue] = [PriceHandler(catalogue, clock)]
        elif queue == BILLING:
            gateway = _gateway(settings)
            chosen[queue] = [
                ChargeHandler(
                    gateway, catalogue, clock, delays=settings.order_charge_delays, policy=policy
                ),
                RefundHandler(gateway, catalogue, clock, policy=policy),
                RequestHandler(catalogue, clock),
                WithdrawHandler(catalogue, clock),
                SuspendHandler(catalogue, clock),
                TerminateHandler(catalogue, clock),
            ]
        elif queue == REMINDERS:
            chosen[queue] = [
                RemindHandler(
                    _mailer(settings),
                    _sender(settings),
                    _links(settings),
                    catalogue,
                    clock,
                    policy=policy,
                )
            ]
    universes = [queue for queue in queues if queue in set(Universe)]
    if universes:
        converge = ConvergeHandler(_drivers(settings), catalogue, clock, policy=policy)
        chosen |= {queue: [converge] for queue in universes}
    return chosen


def _gateway(settings: Settings) -> Gateway:
    url = settings.need("gateway_url")
    if url == INSTANT:
        return InstantGateway()
    token = settings.gateway_token.get_secret_value() if settings.gateway_token else None
    return HttpGateway(url, seconds=settings.call_seconds, token=token)


def _mailer(settings: Settings) -> Mailer:
    url = settings.need("smtp_url")
    if url == INSTANT:
        return InstantMailer()
    with _named("SMTP_URL"):
        return SmtpMailer(url, seconds=settings.call_seconds)


def _sender(settings: Settings) -> str:
    sender = settings.need("mail_from")
    with _named("MAIL_FROM"):
        check_sender(sender)
    return sender


def _links(settings: Settings) -> Links:
    url, secret = settings.need("link_base_url"), settings.need("link_secret")
    with _named("LINK_BASE_URL or AUTORENEW_LINK_SECRET"):
        return Links(url, secret)


@contextmanager
def _named(setting: str) -> Iterator[None]:
    """What is wrong with a setting is said with its name."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"AUTORENEW_{setting}: {error}") from None


def _drivers(settings: Settings) -> dict[str, Driver]:
    if not settings.driver_urls:
        raise ConfigurationError(
            'AUTORENEW_DRIVER_URLS is not set (driver name -> base URL, as {"web": "http://…"})'
        )
    drivers: dict[str, Driver] = {}
    for name, url in settings.driver_urls.items():
        token = settings.driver_tokens.get(name)
        drivers[name] = (
            InstantDriver()
            if url == INSTANT
            else HttpDriver(
                name,
                url,
                seconds=settings.call_seconds,
                token=token.get_secret_value() if token else None,
            )
        )
    return drivers


def add_actors(
    broker: dramatiq.Broker,
    chosen: Mapping[str, Iterable[Handler]],
    runtime: Callable[[str], Runtime],
) -> None:
    """Make an actor ``queue.task`` of every handler; ``runtime`` gives a queue's runtime."""
    for queue, queue_handlers in chosen.items():
        for handler in queue_handlers:
            dramatiq.Actor(
                _body(runtime(queue), handler, queue),
                broker=broker,
                actor_name=f"{queue}.{handler.name}",
                queue_name=queue,
                priority=0,
                options={},
            )


def _body(runtime: Runtime, handler: Handler, queue: str) -> Callable[[Any], None]:
    def run(subjects: Any) -> None:
        runtime.handle(handler, queue, subjects)

    return run
