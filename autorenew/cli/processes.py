"""The processes of the fleet; any number of each may run."""

import json
import sqlite3
import sys
import threading
from pathlib import Path

import click

from autorenew.cli.common import clock, database, on_stop, realms, say
from monitoring import metrics
from schemas.errors import ConfigurationError
from schemas.settings import load_settings


@click.command()
def intake() -> None:
    """Take orders and commands from the AMQP queue `intake` until stopped."""
    from producers import counters
    from producers.intake import Intake
    from producers.intake.amqp import AmqpIntake
    from schemas.catalogue.store import CatalogueCache

    settings = load_settings()
    url = settings.need("broker_url")
    engine = database(settings, application="autorenew intake")
    consumer = AmqpIntake(
        url, Intake(engine, CatalogueCache(), clock(engine, settings), realms(settings))
    )
    counters.of_intake("amqp")
    metrics.serve(settings)
    on_stop(consumer.stop)
    consumer.run()


@click.command()
def relay() -> None:
    """Carry ready tasks from the ledger to RabbitMQ until stopped."""
    from producers import counters
    from producers.relay.relay import Relay
    from producers.relay.transport import RabbitTransport

    settings = load_settings()
    url = settings.need("broker_url")
    engine = database(settings, application="autorenew relay")
    running = Relay(engine, RabbitTransport(url), settings, clock(engine, settings))
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
    engine = database(settings, application="autorenew scheduler")
    running = Scheduler(engine, CatalogueCache(), clock(engine, settings), settings)
    counters.of_scheduler()
    metrics.serve(settings)
    on_stop(running.stop)
    running.run()


@click.command()
@click.argument("queues", nargs=-1, required=True)
@click.option("--processes", "-p", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--threads", "-t", type=click.IntRange(1, 64), default=4, show_default=True)
def worker(queues: tuple[str, ...], processes: int, threads: int) -> None:
    """Work on QUEUES: orders, billing, reminders, web, dedicated, cloud, telecom.

    SIGTERM drains: running tasks finish, then the process ends with exit code 0.
    """
    from workers.bootstrap import check_queues, handlers
    from workers.launcher import Launcher

    settings = load_settings()
    settings.need("broker_url")
    chosen = check_queues(queues)
    engine = database(settings)
    handlers(settings, chosen, clock(engine, settings))  # report missing settings once, here
    engine.dispose()
    launcher = Launcher(settings, chosen, processes=processes, threads=threads)
    on_stop(launcher.stop)
    sys.exit(launcher.run())


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True)
@click.option("--store", default=":memory:", show_default=True, help="SQLite file.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--faults", type=click.Path(path_type=Path), help="JSON list of rules.")
def simulator(host: str, port: int, store: str, seed: int, faults: Path | None) -> None:
    """Simulate payment gateway and infrastructure; --faults makes them misbehave."""
    from simulator.faults import Faults
    from simulator.server import Running

    try:
        rules = json.loads(faults.read_text()) if faults else []
        Faults(rules)
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"--faults: {error}") from None
    stopping = threading.Event()
    on_stop(stopping.set)
    try:
        running = Running(host=host, port=port, store=store, seed=seed, rules=rules)
    except OSError as error:
        raise ConfigurationError(f"cannot serve on {host}:{port}: {error}") from None
    except sqlite3.Error as error:
        raise ConfigurationError(f"--store {store}: {error}") from None
    with running:
        say(f"gateway {running.url}/gateway")
        say(f"infrastructure {running.url}/infrastructure/DRIVER")
        stopping.wait()
