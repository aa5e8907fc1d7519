"""Wiring: which handlers a process runs, on which broker, against which outside world."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dramatiq
from sqlalchemy import Engine

from producers import counters
from producers.events.composing import Composer
from producers.events.exchange import Exchange
from producers.events.publisher import Publisher
from producers.intake.links import Links
from producers.steps import (
    BILLING,
    EVENTS,
    QUEUES,
    ROLE_OF_QUEUE,
    UNIVERSES,
    WEBHOOKS,
    steps_of,
)
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.errors import ConfigurationError
from schemas.settings import INSTANT, Settings
from schemas.tables.far_sides import FarSideKind
from workers import by_hand
from workers.billing.charges.attempt import ChargePolicy
from workers.billing.charges.charge import ChargeHandler
from workers.billing.charges.refund import RefundHandler
from workers.billing.ends import SuspendHandler, TerminateHandler
from workers.billing.gateways.port import Gateway
from workers.billing.payment_requests.handlers import RequestHandler, WithdrawHandler
from workers.events.deliver import DeliverHandler
from workers.events.sender import Sender
from workers.orders.price import PriceHandler
from workers.outside import identity, registry
from workers.outside.books import Books
from workers.provisioning.converge import ConvergeHandler
from workers.provisioning.differences import Kind
from workers.provisioning.drivers.port import Driver
from workers.provisioning.reconcile import ReconcileHandler
from workers.reminders.all_services import all_services
from workers.reminders.mail import check_sender
from workers.reminders.remind import RemindHandler
from workers.reminders.send_link import SendLinkHandler
from workers.reminders.smtp import InstantMailer, Mailer, SmtpMailer, ThreadedMailer
from workers.reminders.tell import TellHandler
from workers.runtime.handlers import Handler
from workers.runtime.retries import policy_for
from workers.runtime.runtime import Runtime
from workers.stating import ByHandHandler

# With the usual backoff these take about a week.
WEBHOOK_ATTEMPTS = 60
# A page of a book is more to collect than one answer, and nobody's lease waits for it.
BOOK_SECONDS = 30.0


def check_queues(queues: Iterable[str]) -> list[str]:
    """Refuse a queue that does not exist, in one clear line; ``events`` stands for its queue."""
    chosen = list(dict.fromkeys(WEBHOOKS if name == EVENTS else name for name in queues))
    unknown = [queue for queue in chosen if queue not in QUEUES]
    if unknown or not chosen:
        raise ConfigurationError(
            f"no queue {', '.join(unknown) or '(none given)'};"
            f" there are {', '.join(QUEUES)}, and {EVENTS}"
        )
    return chosen


def handlers(settings: Settings, queues: Iterable[str], clock: Clock) -> dict[str, list[Handler]]:
    """The handlers of each queue: one for each step that runs there.

    Only what a queue needs is configured: billing holds no infrastructure credential, provisioning
    no gateway's.

    Raises:
        ConfigurationError: something that a queue needs is missing or wrong.
        RuntimeError: a step has no handler.
    """
    catalogue = CatalogueCache()
    built: dict[str, list[Handler]] = {}  # one converge for all universes of a process
    chosen = {}
    for queue in check_queues(queues):
        match queue:
            case "orders":
                made: list[Handler] = [PriceHandler(catalogue, clock)]
            case "billing":
                made = _billing(settings, catalogue, clock)
            case "reminders":
                made = _reminders(settings, catalogue, clock)
            case "webhooks":
                made = [deliver_handler(settings)]
            case _ if queue not in UNIVERSES:
                raise RuntimeError(f"nothing here makes handlers for the queue {queue}")
            case _:
                if "converge" not in built:
                    built["converge"] = _provisioning(settings, catalogue, clock)
                made = built["converge"]
        missing = {step.task for step in steps_of(queue)} - {handler.name for handler in made}
        if missing:
            raise RuntimeError(f"steps without a handler on {queue}: {', '.join(sorted(missing))}")
        chosen[queue] = made
    return chosen


def _billing(settings: Settings, catalogue: CatalogueCache, clock: Clock) -> list[Handler]:
    gateways = gateways_of(settings)
    calls = policy_for("gateway", settings)
    charges = ChargePolicy(order_delays=settings.order_charge_delays, calls=calls)
    return [
        ChargeHandler(gateways, catalogue, clock, policy=charges),
        RefundHandler(gateways, catalogue, clock, policy=calls),
        RequestHandler(catalogue, clock),
        WithdrawHandler(catalogue, clock),
        SuspendHandler(catalogue, clock),
        TerminateHandler(catalogue, clock),
        ByHandHandler(by_hand.writes_settled(catalogue, clock, settings.order_charge_delays)),
    ]


def _reminders(settings: Settings, catalogue: CatalogueCache, clock: Clock) -> list[Handler]:
    mailer, sender, links = _mailer(settings), _sender(settings), _links(settings)
    policy = policy_for("mail", settings)
    to_all = all_services(links, settings.account_url)
    telling = [
        kind(mailer, sender, links, catalogue, clock, all_services=to_all, policy=policy)
        for kind in (RemindHandler, TellHandler)
    ]
    return [*telling, SendLinkHandler(mailer, sender, links, catalogue, clock, policy=policy)]


def _provisioning(settings: Settings, catalogue: CatalogueCache, clock: Clock) -> list[Handler]:
    drivers, policy = drivers_of(settings), policy_for("driver", settings)
    return [
        ConvergeHandler(
            drivers, catalogue, clock, policy=policy, told_after=settings.delivery_email_seconds
        ),
        ReconcileHandler(
            drivers,
            mends=[Kind(kind) for kind in settings.reconcile_mends],
            share=settings.reconcile_share,
            policy=policy,
        ),
        ByHandHandler(by_hand.writes_done(catalogue, clock)),
    ]


def deliver_handler(settings: Settings) -> DeliverHandler:
    """Its attempts outlast the time after which an endpoint that fails is disabled."""
    policy = policy_for("webhook", settings)
    if "webhook" not in settings.retries:
        policy = replace(policy, attempts=max(policy.attempts, WEBHOOK_ATTEMPTS))
    return DeliverHandler(
        Sender(seconds=settings.call_seconds, allowed=settings.webhook_allowed_networks),
        policy=policy,
        disable_after=timedelta(days=settings.webhook_disable_days),
    )


def publisher(engine: Engine, exchange: Exchange, settings: Settings) -> Publisher:
    """What publishes events, beside the deliveries of its queue."""
    composer = Composer(settings.event_source, lambda name: settings.realms.get(name, name))
    return Publisher(engine, exchange, composer, settings)


def gateways_of(settings: Settings, seconds: float | None = None) -> dict[str, Gateway]:
    """The gateways that are configured, by the name that payment methods are stored with.

    Args:
        seconds: the deadline of a call, where it is not that of all outside calls.
    """
    seconds = settings.call_seconds if seconds is None else seconds
    return registry.build("gateways", settings.gateway_options(), seconds=seconds)


def drivers_of(settings: Settings, seconds: float | None = None) -> dict[str, Driver]:
    """The drivers that are configured, by the name that plans use; see :func:`gateways_of`."""
    seconds = settings.call_seconds if seconds is None else seconds
    return registry.build("drivers", settings.driver_options(), seconds=seconds)


def check_far_sides(engine: Engine, settings: Settings, roles: Collection[str]) -> None:
    """Check that this database belongs with the gateways and drivers that are configured.

    Args:
        roles: whose work this process does; only what they call is looked at.

    Raises:
        ConfigurationError: one is elsewhere than the fleet has had it so far.
    """
    with engine.begin() as tx:
        if ROLE_OF_QUEUE[BILLING] in roles:
            identity.check(tx, FarSideKind.GATEWAY, settings.gateway_options())
        if any(ROLE_OF_QUEUE[queue] in roles for queue in UNIVERSES):
            identity.check(tx, FarSideKind.DRIVER, settings.driver_options())


def books_of(settings: Settings) -> Books:
    """The books of all far sides that are configured; none of a kind: that is left out."""
    has_gateways = settings.gateways or settings.gateway_url
    has_drivers = settings.drivers or settings.driver_urls
    seconds = max(settings.call_seconds, BOOK_SECONDS)
    return Books(
        gateways_of(settings, seconds) if has_gateways else {},
        drivers_of(settings, seconds) if has_drivers else {},
    )


def gateway_books_of(settings: Settings) -> Books:
    """The books of the gateways alone."""
    return Books(gateways_of(settings, max(settings.call_seconds, BOOK_SECONDS)), {})


def _mailer(settings: Settings) -> Mailer:
    url = settings.need("smtp_url")
    if url == INSTANT:
        return InstantMailer()
    with _named("SMTP_URL"):
        internal = settings.internal_hosts
        return ThreadedMailer(SmtpMailer(url, seconds=settings.call_seconds, internal=internal))


def _sender(settings: Settings) -> str:
    sender = settings.need("mail_from")
    with _named("MAIL_FROM"):
        check_sender(sender)
    return sender


def _links(settings: Settings) -> Links:
    for needed in ("link_base_url", "link_secret"):
        settings.need(needed)
    with _named("LINK_BASE_URL or AUTORENEW_LINK_SECRET"):
        return Links.of(settings)


@contextmanager
def _named(setting: str) -> Iterator[None]:
    """What is wrong with a setting is said with its name."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"AUTORENEW_{setting}: {error}") from None


def add_actors(
    broker: dramatiq.Broker,
    chosen: Mapping[str, Iterable[Handler]],
    runtime: Callable[[str], Runtime],
) -> None:
    """Make an actor ``queue.task`` of every handler; ``runtime`` gives a queue's runtime."""
    counters.of_worker(chosen)
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


def _body(runtime: Runtime, handler: Handler, queue: str) -> Callable[..., None]:
    def run(batches: Any, lane: str | None = None, size: int = 1) -> None:
        runtime.handle(handler, queue, batches, lane, size)

    return run
