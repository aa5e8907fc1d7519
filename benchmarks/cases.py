"""What is measured, case by case."""

import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from rich.progress import Progress
from sqlalchemy import Engine, text

from benchmarks import (
    amqp_intake,
    api,
    auditing,
    console,
    events,
    failed_work,
    floor,
    history,
    importing,
    latency,
    many_services,
    orders,
    ours,
    outside,
    provisioning,
    renewals,
    watching,
)
from benchmarks.bench import BATCH, Bench
from benchmarks.peers import celery_peer, dramatiq_peer
from benchmarks.reporting import (
    ALONE,
    AMONG_MANY,
    AMQP_INTAKE,
    AT_ONCE,
    CALM,
    CONSOLE,
    COUNTED,
    DUE,
    EXPORTER,
    FEW_AUDITED,
    FEW_SERVICES,
    HANGING,
    HTTP_MANY,
    HTTP_ONE,
    IDLE,
    MANY_AUDITED,
    MANY_PROCESSES,
    MANY_SERVICES,
    METERED,
    NO_EVENTS,
    ONE_EACH,
    ONE_PROCESS,
    ORDERS_SINCE,
    OUTSIDE,
    RETRIED,
    ROUNDS,
    SCRAPE,
    SNAPSHOT,
    SNAPSHOT_SECONDS,
    UNMETERED,
    WITH_EVENTS,
)
from monitoring.audit import audit
from producers.control.selection import Filters
from schemas.database import connect
from schemas.values import Universe

MANY_PLANS = 1000
STALLED_SECONDS = 60.0
"""Without a delivery: a peer whose steps fail is not waited for."""
RENEWALS = 100_000
IMPORTED = 200_000
PEERS = {"celery": celery_peer, "dramatiq": dramatiq_peer}


def run_ours(
    bench: Bench,
    case: str = "fleet",
    plans: int = 1,
    universes: Sequence[Universe] = (Universe.WEB,),
) -> None:
    with bench.fleet(plans, universes) as fleet:
        bench.note(case, bench.orders, bench.drain(fleet, case, plans))
        bench.results.worker_mb += [round(size, 1) for size in ours.worker_memory(fleet)]
        _check(fleet.owner)


def run_many_plans(bench: Bench) -> None:
    run_ours(bench, f"fleet, {MANY_PLANS} plans", MANY_PLANS)


def run_universes(bench: Bench) -> None:
    """Four queues instead of one: their batches are smaller."""
    run_ours(bench, f"{MANY_PLANS} plans in 4 universes", MANY_PLANS, list(Universe))


def run_snapshot(bench: Bench) -> None:
    """Work for a minute, and for another under one snapshot that is older than all of it: compared
    with each other, since a database that grows costs time, too."""
    for case in (ROUNDS, SNAPSHOT):
        with bench.fleet(1) as fleet, fleet.owner.connect() as old:
            if case == SNAPSHOT:
                old.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
                old.execute(text("SET idle_in_transaction_session_timeout = 0"))
                old.execute(text("SELECT count(*) FROM tasks"))
            opened, seconds, rounds = time.monotonic(), 0.0, 0
            while time.monotonic() - opened < SNAPSHOT_SECONDS:
                seconds += bench.drain(fleet, case, 1)
                rounds += 1
            bench.note(case, rounds * bench.orders, seconds)
            old.rollback()


def run_floor(bench: Bench) -> None:
    with bench.database() as (url, engine):
        ids = orders.place(engine, bench.orders)
        bench.note("floor", bench.orders, floor.run(url, ids, BATCH))
        with engine.begin() as tx:
            tx.execute(text("DELETE FROM tasks"))
            tx.execute(text("DELETE FROM batches"))
        _check(engine)


def run_peer(bench: Bench, name: str) -> None:
    peer = PEERS[name]
    vhost = f"{name}_{uuid.uuid4().hex[:8]}"
    bench.rabbitmq.add_vhost(vhost)
    broker_url = bench.rabbitmq.url(vhost=vhost)
    with bench.database() as (url, engine):
        ids = orders.place(engine, bench.orders)
        with engine.begin() as tx:
            tx.execute(text("DELETE FROM tasks"))
            tx.execute(text("DELETE FROM batches"))
        workers = peer.start(url, broker_url)
        try:
            with Progress(console=bench.console, transient=True) as progress:
                bar = progress.add_task(name, total=bench.orders)
                started = time.perf_counter()
                peer.enqueue(url, broker_url, ids)
                done, seen_at = 0, started
                while done < bench.orders:
                    time.sleep(0.1)
                    before, done = done, orders.delivered(engine)
                    progress.update(bar, completed=done)
                    seen_at = time.perf_counter() if done > before else seen_at
                    if time.perf_counter() - seen_at > STALLED_SECONDS:
                        raise RuntimeError(f"{name} has stopped at {done} of {bench.orders}")
                elapsed = time.perf_counter() - started
        finally:
            peer.stop(workers)
        bench.note(name, bench.orders, elapsed)
        _check(engine)
    bench.rabbitmq.delete_vhost(vhost)


def run_latency(bench: Bench) -> None:
    with bench.fleet(1) as fleet:
        fleet.start_intake()
        fleet.wait_for_consumers()
        bench.results.latency_ms += latency.run(fleet)
        _check(fleet.owner)
    bench.console.print("  one order at a time: measured")


def run_events_latency(bench: Bench) -> None:
    with bench.fleet(1) as fleet:
        events.start(fleet)
        bench.results.event_latency_ms += events.latency(fleet)
        _check(fleet.owner)
    bench.console.print("  one order at a time, with events: measured")


def run_events_cost(bench: Bench) -> None:
    """The fleet without and with events, in turns."""
    for case in (NO_EVENTS, WITH_EVENTS):
        with bench.fleet(1) as fleet:
            if case == NO_EVENTS:
                events.without(fleet.owner)
            else:
                events.start(fleet)
            bench.note(case, bench.orders, bench.drain(fleet, case, 1))
            if case == WITH_EVENTS:
                bench.note_seconds("events, all out after the last order", events.catch_up(fleet))
            _check(fleet.owner)


def run_amqp_intake(bench: Bench) -> None:
    """Documents of one upstream that wait in the queue, and one process that takes them."""
    with bench.prepared(orders.catalogue(1)) as fleet:
        documents = amqp_intake.publish(fleet, bench.orders)
        with Progress(console=bench.console, transient=True) as progress:
            bar = progress.add_task(AMQP_INTAKE, total=documents)
            count, seconds = amqp_intake.run(
                fleet, documents, lambda done: progress.update(bar, completed=done)
            )
        bench.note(AMQP_INTAKE, count, seconds, "documents")
        _check(fleet.owner)


def run_outside(bench: Bench) -> None:
    """A gateway that takes 0.3 s and an infrastructure that takes 0.5 s, a process for each."""
    with outside.far_side(0.0, 0.0) as url:
        bench.note(ALONE, 6000, 6000 / outside.served(url), "calls")
    with (
        outside.far_side(outside.CHARGE_SECONDS, outside.OPERATE_SECONDS) as url,
        bench.calling_fleet(url) as fleet,
    ):
        bench.note(OUTSIDE, bench.orders, bench.drain(fleet, OUTSIDE, 1))
        _check(fleet.owner)
    with (
        outside.far_side(outside.LONG_SECONDS, 0.0) as url,
        bench.calling_fleet(url, calls_at_once="1000", call_seconds="29") as fleet,
    ):
        orders.place(fleet.owner, 1000)
        outside.wait_for_charges(fleet, 1000)
        bench.results.calling_mb.append(round(outside.memory(fleet, "worker-billing"), 1))
        fleet.wait_until_idle(60)
        _check(fleet.owner)


def run_processes(bench: Bench) -> None:
    """An infrastructure that takes its time: one process, and several with the same limits each."""
    for processes, case in ((1, ONE_PROCESS), (provisioning.MANY_PROCESSES, MANY_PROCESSES)):
        with outside.far_side(0.0, provisioning.SHORT_SECONDS) as url:
            at_once = str(provisioning.FEW_AT_ONCE)
            settings = provisioning.settings(url, calls_at_once=at_once)
            _provision(bench, case, settings, count=processes * 2000, processes=processes)


def run_at_once(bench: Bench) -> None:
    """One process with many calls at once."""
    with outside.far_side(0.0, provisioning.LONG_SECONDS) as url:
        at_once = str(provisioning.MANY_AT_ONCE)
        settings = provisioning.settings(url, calls_at_once=at_once)
        _provision(bench, AT_ONCE, settings, count=6000)


def run_hanging(bench: Bench) -> None:
    """Four universes in one process; then the driver of one of them hangs."""
    others = [universe for universe in Universe if universe != provisioning.HANGING]
    for case, hangs in ((CALM, ()), (HANGING, (provisioning.HANGING,))):
        with outside.far_side(0.0, provisioning.SHORT_SECONDS, hangs) as url:
            settings = provisioning.settings(
                url, calls_at_once="20", call_seconds=str(provisioning.CALL_SECONDS)
            )
            _provision(bench, case, settings, count=12_000, watched=others)


def _provision(
    bench: Bench,
    case: str,
    settings: dict[str, str],
    *,
    count: int,
    processes: int = 1,
    watched: Sequence[Universe] = (Universe.WEB,),
) -> None:
    """Deliver paid services; with several universes as many in each.

    Args:
        watched: universes whose deliveries are waited for.
    """
    universes = list(Universe) if len(watched) > 1 else [Universe.WEB]
    plans = len(universes)
    with bench.prepared(orders.catalogue(plans, universes), **settings) as fleet:
        provisioning.prepare(fleet, count, plans, universes)
        for number in range(processes):
            fleet.start_worker(*universes, name=f"worker-{number}", threads=4)
        wanted = count * len(watched) // len(universes)
        with Progress(console=bench.console, transient=True) as progress:
            bar = progress.add_task(case, total=wanted)
            seconds = provisioning.run(
                fleet, wanted, lambda done: progress.update(bar, completed=done), watched
            )
        bench.note(case, wanted, seconds, "services")
        if len(watched) == len(universes):
            fleet.wait_until_idle(60)
        _check(fleet.owner)


def run_renewals(bench: Bench) -> None:
    """Services that fall due on one day, a few to a customer; and one to a customer."""
    _renew(bench, "renewals", RENEWALS // 4)
    _renew(bench, ONE_EACH, RENEWALS)


def run_history(bench: Bench) -> None:
    """The same among ten times as many services, each with a year of history."""
    _renew(bench, ONE_EACH, RENEWALS)
    _renew(bench, AMONG_MANY, RENEWALS, others=9 * RENEWALS)


def _renew(bench: Bench, case: str, customers: int, *, others: int = 0) -> None:
    billed = 12 if others else 0
    with bench.prepared(orders.catalogue(1)) as fleet:
        renewals.fill(fleet.owner, RENEWALS, customers, billed=billed)
        if others:
            history.add_others(fleet.owner, others)
            history.write(fleet.owner)
        renewals.start(fleet)
        with Progress(console=bench.console, transient=True) as progress:
            bar = progress.add_task(case, total=RENEWALS)
            seconds = renewals.run(
                fleet,
                RENEWALS,
                lambda done: progress.update(bar, completed=done),
                customers=customers,
                billed=billed,
            )
        bench.note(case, RENEWALS, seconds, "services")
        fleet.wait_until_idle(60)
        _check(fleet.owner)


def run_audit(bench: Bench) -> None:
    """All of the books, and what a hundred orders have changed since."""
    for count in (FEW_AUDITED, MANY_AUDITED):
        with bench.fleet(1) as fleet:
            auditing.fill(fleet.owner, count)
            seconds, mark = auditing.everything(fleet.owner)
            bench.note_seconds(f"an audit of {count:,} services", seconds)
            ours.pause(fleet.owner)
            orders.place(fleet.owner, ORDERS_SINCE)
            ours.run(fleet.owner, ORDERS_SINCE, lambda done: None)
            for _ in range(3):
                seconds, _ = auditing.changed(fleet.owner, mark)
                bench.note_seconds(
                    f"an audit since {ORDERS_SINCE} orders, among {count:,}", seconds
                )


def run_many(bench: Bench) -> None:
    """The cost of a sweep, and of a forecast, when there are millions."""
    for count in (FEW_SERVICES, MANY_SERVICES):
        with (
            bench.empty_database() as (_, engine),
            Progress(console=bench.console, transient=True) as progress,
        ):
            bar = progress.add_task(f"writing {count:,} services", total=count)
            today = datetime.now(UTC).date()
            many_services.fill(
                engine, count, today=today,
                watch=lambda done, b=bar: progress.update(b, completed=done),
            )  # fmt: skip
            for _ in range(3):
                bench.note_seconds(
                    f"a sweep of {DUE:,} among {count:,}", many_services.sweep(engine, DUE)
                )
            if count == MANY_SERVICES:
                for _ in range(3):
                    seconds = many_services.forecast(engine, today)
                    bench.note_seconds(f"a forecast over {count:,} services", seconds)


def run_failed(bench: Bench) -> None:
    """Failed work: counted by group among many services, and retried in bulk, all at once."""
    today, failures = datetime.now(UTC).date(), bench.failures
    with (
        bench.empty_database() as (name, engine),
        Progress(console=bench.console, transient=True) as progress,
    ):
        bar = progress.add_task(f"writing {bench.services:,} services", total=bench.services)
        failed_work.fill(
            engine, bench.services, failures, today=today,
            watch=lambda done: progress.update(bar, completed=done),
        )  # fmt: skip
        api = connect(bench.postgres.role_url(name, "api"))
        for _ in range(5):
            bench.note_seconds(COUNTED, failed_work.count(api, Filters(), failures))
            for what, filters in (
                ("of a plan", Filters(plan="plan-1")),
                ("of a reason and a driver", Filters(reason="reason_1", driver="web")),
                ("of a customer", Filters(customer="customer-1")),
            ):
                bench.note_seconds(f"{COUNTED}, {what}", failed_work.count(api, filters))
        api.dispose()
    with bench.prepared(many_services.catalogue(failed_work.PLANS)) as fleet:
        failed_work.fill(fleet.owner, 2 * failures, failures, today=today, watch=lambda done: None)
        failed_work.start(fleet)
        with Progress(console=bench.console, transient=True) as progress:
            bar = progress.add_task(RETRIED, total=failures)
            dispatched, ended = failed_work.retry(
                fleet.owner, failures, lambda done: progress.update(bar, completed=done)
            )
        bench.note_seconds(RETRIED, dispatched)
        bench.note_seconds("a bulk retry, all ended", ended)


def run_api(bench: Bench) -> None:
    """Orders over HTTP, to one process: one to a request, and many; nothing works on them."""
    with bench.prepared(orders.catalogue(1)) as fleet:
        port, key = api.start(fleet)
        one = api.one_each(port, key, bench.orders)
        bench.note(HTTP_ONE, bench.orders, one.seconds)
        bench.results.http_ms += [round(second * 1000, 2) for second in one.requests]
        many = api.many_each(port, key, 2 * bench.orders)
        bench.note(HTTP_MANY, 2 * bench.orders, many.seconds)
        committed = api.committed(fleet)
        if committed != 3 * bench.orders + api.WARM_UP:
            raise RuntimeError(f"{committed} orders were committed")


def run_console(bench: Bench) -> None:
    """The console's pages of failed work: 200 groups, one of them, and what a retry would do."""
    today, failures = datetime.now(UTC).date(), bench.failures
    with bench.empty_database() as (name, engine):
        failed_work.fill(
            engine, 2 * failures, failures, today=today, watch=lambda done: None,
            codes=console.CODES,
        )  # fmt: skip
        roles = [connect(bench.postgres.role_url(name, role)) for role in ("console", "readonly")]
        with console.Visitor(*roles) as visitor:
            for _ in range(10):
                seconds, page = visitor.look("/failed")
                if console.groups_on(page) != 4 * console.CODES:
                    raise RuntimeError(f"{console.groups_on(page)} groups are shown")
                bench.note_seconds(CONSOLE, seconds)
                for what, path in (
                    ("one group", "/failed/tasks?step=converge&driver=web&code=reason_1"),
                    ("the overview", "/"),
                    ("lanes", "/lanes"),
                ):
                    bench.note_seconds(f"{CONSOLE}: {what}", visitor.look(path)[0])
        for one in roles:
            one.dispose()


def run_import(bench: Bench) -> None:
    with bench.empty_database() as (name, engine):
        importing.prepare(engine)
        api = connect(bench.postgres.role_url(name, "api"))
        seconds = importing.run(api, IMPORTED)
        api.dispose()
        bench.note("import", IMPORTED, seconds, "rows")


def run_exporter(bench: Bench) -> None:
    """The exporter among millions of services, with failed work."""
    today = datetime.now(UTC).date()
    with (
        bench.empty_database() as (name, engine),
        Progress(console=bench.console, transient=True) as progress,
    ):
        bar = progress.add_task(f"writing {bench.services:,} services", total=bench.services)
        failed_work.fill(
            engine, bench.services, bench.failures, today=today,
            watch=lambda done: progress.update(bar, completed=done),
        )  # fmt: skip
        exporter = watching.Exporter(bench.postgres.role_url(name, "exporter"), engine)
        try:
            exporter.wait(600)
            slowest, share = watching.watch(exporter)
            for part, seconds in watching.values(
                exporter.scrape(), "autorenew_exporter_collection_seconds"
            ).items():
                bench.console.print(f"    {part}: {seconds:.3f} s")
        finally:
            exporter.stop()
        bench.note_seconds(SCRAPE, slowest)
        bench.note_share(EXPORTER, share)


def run_metrics_cost(bench: Bench) -> None:
    """Orders with metrics and an exporter, and without, by turns."""
    for _ in range(2):
        with watching.unmetered(), bench.fleet(1) as fleet:
            bench.note(UNMETERED, bench.orders, bench.drain(fleet, UNMETERED, 1))
        with bench.fleet(1) as fleet:
            fleet.start_exporter()
            bench.note(METERED, bench.orders, bench.drain(fleet, METERED, 1))


def run_idle(bench: Bench) -> None:
    """Every role once, with nothing to do."""
    with bench.prepared(orders.catalogue(1)) as fleet:
        fleet.start_all()
        fleet.start_exporter()
        fleet.wait_for_consumers()
        bench.note_share(IDLE, watching.rest(fleet, bench.console.print))


def _check(engine: Engine) -> None:
    """A fast run whose books do not agree is worth nothing."""
    with engine.connect() as tx:
        broken = [finding.invariant for finding in audit(tx) if finding.broken]
    if broken:
        raise RuntimeError(f"the audit is not clean: {broken}")


CASES: dict[str, Callable[[Bench], None]] = {
    "fleet": run_ours,
    "floor": run_floor,
    "plans": run_many_plans,
    "universes": run_universes,
    "snapshot": run_snapshot,
    "celery": lambda bench: run_peer(bench, "celery"),
    "dramatiq": lambda bench: run_peer(bench, "dramatiq"),
    "latency": run_latency,
    "events-latency": run_events_latency,
    "events-cost": run_events_cost,
    "amqp-intake": run_amqp_intake,
    "api": run_api,
    "outside": run_outside,
    "processes": run_processes,
    "at-once": run_at_once,
    "hanging": run_hanging,
    "renewals": run_renewals,
    "history": run_history,
    "audit": run_audit,
    "import": run_import,
    "many": run_many,
    "failed": run_failed,
    "console": run_console,
    "exporter": run_exporter,
    "metrics-cost": run_metrics_cost,
    "idle": run_idle,
}
ONCE = ("many", "history", "failed", "console", "audit", "exporter")
"""Measured in the first run only: their databases take minutes to write."""
