"""The processes of the fleet; any number of each may run."""

import json
import sqlite3
import sys
import threading
from pathlib import Path

import click
from sqlalchemy import Engine

from autorenew.cli.common import clock, database, on_stop, present, realms, say
from monitoring import metrics, tracing
from producers.control import own_clock
from producers.control.own_clock import WrongClock
from schemas import logs
from schemas.clock import Clock
from schemas.errors import ConfigurationError
from schemas.role_check import check_role
from schemas.settings import Settings, load_settings


def start(settings: Settings, application: str, *roles: str) -> tuple[Engine, Clock]:
    """The database and the clock of a process, once it is sure that it can work with them.

    Raises:
        ConfigurationError: the database, its role or this host's clock is wrong.
    """
    tracing.configure(settings, application.removeprefix("autorenew "))
    click.get_current_context().call_on_close(tracing.close)
    engine = database(settings, application=application)
    check_role(engine, *roles)
    fleet_clock = clock(engine, settings)
    try:
        own_clock.check(fleet_clock, settings)
    except WrongClock as error:
        raise ConfigurationError(str(error)) from None
    return engine, fleet_clock


@click.command()
def intake() -> None:
    """Take orders and commands from the AMQP queue `intake` until stopped."""
    from producers import broker, counters, topology
    from producers.intake import Intake
    from producers.intake.amqp import AmqpIntake
    from schemas.catalogue.store import CatalogueCache

    settings = load_settings()
    urls = settings.need("broker_url")
    topology.check_upstreams(settings.intake_upstreams)
    broker.check(urls)
    engine, fleet_clock = start(settings, "autorenew intake", "api")
    consumer = AmqpIntake(
        urls,
        Intake(engine, CatalogueCache(), fleet_clock, realms(settings)),
        upstreams=settings.intake_upstreams,
        keep_days=settings.rejected_days,
    )
    counters.of_intake("amqp")
    metrics.serve(settings)
    present(engine, "intake")
    on_stop(consumer.stop)
    consumer.run()


@click.command()
def relay() -> None:
    """Carry ready tasks from the ledger to RabbitMQ until stopped."""
    from producers import broker, counters
    from producers.relay.relay import Relay
    from producers.relay.transport import RabbitTransport

    settings = load_settings()
    urls = settings.need("broker_url")
    broker.check(urls)
    engine, fleet_clock = start(settings, "autorenew relay", "relay")
    running = Relay(engine, RabbitTransport(urls), settings, fleet_clock)
    counters.of_relay()
    metrics.serve(settings)
    on_stop(running.stop)
    running.run()


@click.command()
def scheduler() -> None:
    """Enqueue due renewals, reminders and ends until stopped; any number may run."""
    from producers import counters
    from producers.scheduler.scheduler import Scheduler
    from schemas.catalogue.store import CatalogueCache

    settings = load_settings()
    engine, fleet_clock = start(settings, "autorenew scheduler", "scheduler")
    running = Scheduler(engine, CatalogueCache(), fleet_clock, settings)
    counters.of_scheduler()
    metrics.serve(settings)
    on_stop(running.stop)
    running.run()


@click.command()
@click.argument("queues", nargs=-1, required=True)
@click.option(
    "--processes",
    "-p",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Worker processes, each with its own threads.",
)
@click.option(
    "--threads",
    "-t",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Batches that a process works on at a time.",
)
def worker(queues: tuple[str, ...], processes: int, threads: int) -> None:
    """Work on QUEUES: orders, billing, reminders, events, web, dedicated, cloud, telecom.

    `events` publishes what happened for upstream, and delivers it to webhooks (queue `webhooks`).

    SIGTERM drains: running tasks finish, then the process ends with exit code 0.
    """
    from producers import broker
    from producers.counters import publisher_metrics
    from producers.events.exchange import RabbitExchange
    from producers.events.publisher import Publishing
    from producers.steps import ROLE_OF_QUEUE, WEBHOOKS
    from workers.bootstrap import check_far_sides, check_queues, handlers, publisher
    from workers.launcher import Launcher

    settings = load_settings()
    urls = settings.need("broker_url")
    chosen = check_queues(queues)
    logs.name_process(f"worker {','.join(chosen)}")
    broker.check(urls)
    roles = sorted({ROLE_OF_QUEUE[queue] for queue in chosen})
    engine, fleet_clock = start(settings, "autorenew worker", *roles)
    handlers(settings, chosen, fleet_clock)  # report missing settings once, here
    check_far_sides(engine, settings, roles)
    launcher = Launcher(
        settings,
        chosen,
        processes=processes,
        threads=threads,
        check=lambda: own_clock.check(fleet_clock, settings),
        own=publisher_metrics() if WEBHOOKS in chosen else (),
    )
    if WEBHOOKS not in chosen:
        on_stop(launcher.stop)
        sys.exit(launcher.run())
    publishing = Publishing(publisher(engine, RabbitExchange(urls), settings))

    def stop() -> None:
        publishing.stop()
        launcher.stop()

    on_stop(stop)
    with publishing:
        code = launcher.run()
    sys.exit(code)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8090,
    show_default=True,
    help="0: any that is free.",
)
@click.option(
    "--store", default=":memory:", show_default=True, help="SQLite file that keeps its books."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the faults' dice.")
@click.option(
    "--faults",
    type=click.Path(path_type=Path),
    help="JSON list of rules: docs/reference/simulator.md.",
)
@click.option("--token", help="What the infrastructure asks for.  [default: nothing]")
@click.option(
    "--smtp-port",
    type=click.IntRange(1, 65535),
    help="Also take e-mails here, and show them as /mails.  [default: no mail server]",
)
def simulator(
    host: str,
    port: int,
    store: str,
    seed: int,
    faults: Path | None,
    token: str | None,
    smtp_port: int | None,
) -> None:
    """Simulate payment gateway and infrastructure; --faults makes them misbehave."""
    from simulator.faults import Faults
    from simulator.mailbox import Mailbox
    from simulator.server import Running

    try:
        rules = json.loads(faults.read_text()) if faults else []
        Faults(rules)
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"--faults: {error}") from None
    stopping = threading.Event()
    on_stop(stopping.set)
    mailbox = Mailbox(host, smtp_port) if smtp_port else None
    try:
        if mailbox is not None:
            mailbox.start()
    except OSError as error:
        raise ConfigurationError(f"cannot take e-mails on {host}:{smtp_port}: {error}") from None
    try:
        running = Running(
            host=host, port=port, store=store, seed=seed, rules=rules, token=token, mailbox=mailbox
        )
    except OSError as error:
        raise ConfigurationError(f"cannot serve on {host}:{port}: {error}") from None
    except sqlite3.Error as error:
        raise ConfigurationError(f"--store {store}: {error}") from None
    with running:
        say(f"gateway {running.url}/gateway")
        say(f"infrastructure {running.url}/infrastructure/DRIVER")
        if mailbox is not None:
            say(f"mail server {mailbox.url}, its mails {running.url}/mails")
        stopping.wait()
        if mailbox is not None:
            mailbox.stop()
