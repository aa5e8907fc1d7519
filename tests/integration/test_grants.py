"""Each right that a role was granted is used: without it, a statement of its would fail.

A fleet lives for two months while its statements are recorded, each with the role that executes it.
Then each right is taken away in turn, in a transaction that is rolled back, and PostgreSQL is asked
to explain the statements: it checks the rights then, and executes nothing.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, TextClause, event, text
from sqlalchemy.exc import ProgrammingError

from autorenew import rights
from autorenew.cli import customers
from autorenew.console import accounts, sessions
from monitoring.exporter import auditing
from producers import correlation, presence
from producers.api import answers, keys
from producers.control import (
    breakers,
    bulk,
    bulk_running,
    editing,
    ending,
    failed,
    giving_up,
    groups,
    guard,
    lanes,
    limits,
    naming,
    suspending,
    webhooks,
)
from producers.control import stating as handed_over
from producers.events import deliveries, publisher, reading, untold
from producers.imports import arrivals
from producers.imports.importing import import_services
from producers.intake import agreements, rejected
from producers.ledger import claims, dispatching, tasks
from producers.pages import new_links
from producers.renewals import next_steps, traces
from producers.steps import UNIVERSES
from producers.views import orders, timelines
from schemas import locks
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache, save
from schemas.clock import SystemClock
from schemas.locks import Lock
from schemas.tables import ROLES
from schemas.tables.bulk import Bulk
from schemas.virtual_clock import VirtualClock
from tests.conftest import Database
from tests.integration.test_importing import ndjson, row
from tests.integration.test_renewals import DECLINE, accepts, declines
from tests.support import given, moving
from tests.support.given import body, line, order
from tests.support.life import Life
from tests.support.operators import give_up
from workers import by_hand, stating
from workers.billing.charges import charge, reconcile, tax_of_day
from workers.billing.charges import renewals as charged_renewals
from workers.billing.payment_requests import handlers
from workers.billing.payment_requests import store as requests
from workers.events import deliver
from workers.outside import identity
from workers.provisioning import differences, mending, outlook
from workers.provisioning import reconcile as reconciled
from workers.provisioning import store as operations
from workers.reminders import remind, send_link, tell

Statement = tuple[str, Any]

BREAKER = (
    breakers._OPEN, breakers._ASKED_MEANWHILE, breakers._OPEN_LONGER, breakers._CLOSE,
    breakers._PROBE_NOW,
)  # fmt: skip
WRITTEN_DOWN = (stating._OPERATION, stating._NEXT, stating._ENDED)
PRESENCE = (presence._BEAT, presence._BEGIN, presence._END, presence._FORGET)
# What a fleet does once in a while, such as after a crash: the statement is enough.
RARE: dict[str, list[TextClause | Bulk[Any]]] = {
    "api": [
        failed._GIVE_UP_SERVICE, failed._CANCEL_ORDER, failed._GIVE_UP_ORDER, failed._STILL_FAILED,
        failed._GIVE_UP_CHARGE, failed._EMAIL, failed._GIVE_UP_EMAIL, failed._RELEASE,
        failed._DROP, lanes._LIST, lanes._FORGET_ENDS, agreements._raise,
        customers._ASSIGN, orders._FIND, naming._BY_KEY, naming._BY_DOMAIN, naming._OF_SERVICES,
        naming._OF_CUSTOMER, tasks._RUN_NOW, tasks._SEND_AGAIN, rejected._FORGET, bulk._INSERT,
        bulk._SNAPSHOT, bulk._COUNT, bulk._STOP, bulk._ONE, bulk._NOT_DONE, groups._GROUPS,
        groups._PAID, editing._SERVICE, editing._IN_DOUBT, editing._EDIT, outlook._READ,
        breakers._LIST,
        breakers._PROBE_NOW, breakers._CLOSE, limits._SET, limits._LIFT, limits._LIST,
        failed._GIVE_UP_TELLING, failed._LINES, keys._INSERT, keys._LIST, keys._BY_PREFIX,
        keys._IS_KNOWN, keys._REVOKE, keys._USED, answers._BEGIN, answers._READ, answers._KEEP,
        answers._FORGET,
        *PRESENCE,
        failed._GIVE_UP_EVENT, new_links._ASK, new_links._WHO, correlation._BEHIND,
        traces._UNTRACED, traces._trace,
        webhooks._ADD, webhooks._LIST, webhooks._DELIVERIES, webhooks._DELIVERY,
        webhooks._SET_STATE, webhooks._ROTATE, webhooks._REPLAY, webhooks._REPLAYS,
        webhooks._LEFT, webhooks._UNTOLD, deliveries._ADD,
    ],
    "events": [
        claims._KEEP, claims._NOT_DONE, claims._RELEASE, claims._ABANDON, claims._CLAIM,
        claims._DONE,
        dispatching._HAND_BACK, *BREAKER,
        publisher._LOOK, publisher._IS_COMPLETE, publisher._HOLD, publisher._LET_GO,
        publisher._MOVE, publisher._LENGTHEN, publisher._BEGIN, reading.READ, reading._ORDERS,
        reading._SERVICES_OF, reading._SERVICES, reading._REQUESTS, reading._AFTER,
        deliveries._WRITE, deliveries._ENABLED, deliveries._REPLAY, deliveries._REPLAYED,
        deliveries._FORGET, deliver._READ, deliver._DROP, deliver._BEGIN, deliver._LOCK,
        deliver._WORKS, deliver._FAILS, deliver._DISABLE, deliver._END, tasks._ENQUEUE,
        correlation._BEHIND, untold._KEEP, untold._TOLD, *PRESENCE,
    ],
    "orders": [
        claims._KEEP, claims._NOT_DONE, claims._RELEASE, claims._ABANDON, correlation._BEHIND,
        *PRESENCE,
    ],
    "billing": [
        claims._KEEP, claims._NOT_DONE, claims._RELEASE, claims._ABANDON, dispatching._HAND_BACK,
        correlation._BEHIND, traces._UNTRACED, traces._trace,
        charge._VOID, charged_renewals._refuse, charged_renewals._ASK, handlers._DEARER,
        handlers._pay_with, reconcile._ATTEMPTED, reconcile._OURS, requests._close,
        requests._RELEASE, requests._OFF, tax_of_day._tax_requests, tax_of_day._tax_lines,
        handlers._ALONE, charged_renewals._NEXT_ATTEMPT, by_hand._BY_HAND, identity._WRITE,
        identity._READ, guard._PAUSE, *BREAKER, *PRESENCE, *WRITTEN_DOWN,
    ],
    "reminders": [
        claims._KEEP, claims._NOT_DONE, claims._RELEASE, claims._ABANDON, dispatching._HAND_BACK,
        correlation._BEHIND,
        remind._leave_out, tasks._ENQUEUE, tell._REFUSED, send_link._ASKED, send_link._BEGIN,
        send_link._SENT, *BREAKER, *PRESENCE,
    ],
    "provisioning": [
        claims._KEEP, claims._NOT_DONE, claims._RELEASE, claims._ABANDON, dispatching._HAND_BACK,
        correlation._BEHIND,
        operations.OVERTAKE, operations.SUPERSEDE, operations.GIVE_UP, next_steps.store,
        identity._WRITE, identity._READ, *BREAKER, mending._SEE, reconciled._DRIVERS,
        reconciled._END, differences._NOW, differences._NAMES, differences._BY_ID,
        differences._THERE, differences._AT_REST, *PRESENCE, *WRITTEN_DOWN,
    ],
    "relay": [
        dispatching._RESCUE_DISPATCHED, dispatching._LOST, dispatching._RESCUE_LEASED,
        dispatching._UNDISPATCH,
        dispatching._AWAKE, guard._PAUSE, guard._LAST, guard._BEAT, guard._DOUBT,
        *dispatching._PROBING, dispatching._TAKE_TOKENS, *dispatching._SET_BACK, *PRESENCE,
    ],
    "scheduler": [
        guard._PAUSE, guard._COUNT, guard._FORGET, guard._COUNTED, bulk._ONE, bulk_running._HOLD,
        bulk_running._LOOK, bulk_running._UNTRIED, bulk_running._NEXT,
        *bulk_running._STILL.values(), bulk_running._FORGET,
        bulk_running._SENT, bulk_running._SKIPPED, bulk_running._SAVE, tasks._RETRY,
        giving_up._GIVE_UP, correlation._BEHIND, traces._UNTRACED, traces._trace,
        editing._EDIT_IN_BULK, handed_over.LOOK, handed_over._QUEUE, *PRESENCE,
    ],
    "exporter": [
        auditing._KNOW, auditing._BEGIN, auditing._PART, auditing._DONE, auditing._CUT,
        auditing._GIVE_UP, auditing._END, auditing._FORGET, locks._TRY[Lock.AUDIT],
        *PRESENCE,
    ],
    "console": [
        accounts._ADD, accounts._LIST, accounts._REMOVE, accounts._SET_ROLE,
        accounts._SET_PASSWORD, accounts._END_SESSIONS, accounts._END_LINKS, accounts._PASSWORD,
        accounts._REHASH, accounts._LINK, accounts._USE_LINK, accounts._FORGET_LINKS,
        sessions._BEGIN, sessions._SIGNED_IN, sessions._FIND, sessions._TOUCH, sessions._END,
        sessions._FORGET, sessions._FAIL, sessions._WAIT, sessions._SUCCEED,
        sessions._FORGET_FAILURES,
    ],
}  # fmt: skip
# What is asked for in cases that this life does not have: a service ended while it was paid, one
# that cannot be quoted, one that cannot be written about.
RARELY_ASKED = {
    ("autorenew_billing", "refund", "billing"),
    ("autorenew_billing", "request", "billing"),
    ("autorenew_reminders", "remind", "reminders"),
    ("autorenew_api", "tell", "reminders"),
    ("autorenew_api", "deliver", "webhooks"),
    ("autorenew_events", "deliver", "webhooks"),
    ("autorenew_api", "send_link", "reminders"),
    *(("autorenew_scheduler", "by_hand", queue) for queue in ("billing", *UNIVERSES)),
    ("autorenew_billing", "by_hand", "billing"),
    *(("autorenew_provisioning", "by_hand", universe) for universe in UNIVERSES),
    *(("autorenew_scheduler", "reconcile", universe) for universe in UNIVERSES),
    *(("autorenew_provisioning", "converge", universe) for universe in UNIVERSES),
}
# Of processes of the release before, which run beside new ones during an update; a later migration
# takes them away.
OF_BEFORE = {
    "autorenew_scheduler: SELECT (lane) on lane_breakers",
    "autorenew_scheduler: SELECT (source) on lane_pauses",
}
# Values of parameters; a list of UUIDs for those that are not here.
SAMPLES = {
    "now": datetime(2026, 1, 1, tzinfo=UTC), "since": datetime(2026, 1, 1, tzinfo=UTC),
    "rows": "[]", "silence": datetime.resolution, "business": datetime(2026, 1, 1, tzinfo=UTC),
    **dict.fromkeys(("more", "most", "days", "limit", "max_starts", "attempt", "size"), 1),
    "hour": datetime(2026, 1, 1, tzinfo=UTC),
    "gather": 1, "until": datetime(2026, 1, 1, tzinfo=UTC),
    **dict.fromkeys(("delay", "shortest", "longest", "first", "cap", "asked", "seconds"), 1.0),
    **dict.fromkeys(("settled", "every"), 1.0),
    "driver": "x", "after_id": UUID(int=1),
    "probe": 1.0, "code": "x",
    **dict.fromkeys(("role", "issuer", "password_hash", "who"), "x"), "token_hash": b"x",
    **dict.fromkeys(("idle", "whole", "forgotten"), 1.0), "whos": ["x"], "free": [1],
    **dict.fromkeys(("at_once", "per_second", "burst", "tasks"), 1),
    **dict.fromkeys(("name", "lane", "reason", "error", "identity", "queue", "kind"), "x"),
    **dict.fromkeys(("id", "token", "key", "request_id", "relay"), UUID(int=1)),
    **dict.fromkeys(("upstream", "domain", "cause", "channel", "customer"), "x"),
    **dict.fromkeys(("process", "version", "host", "invariant", "problem"), "x"),
    **dict.fromkeys(("pid", "run", "parts", "violations"), 1), "offenders": "[]",
    "invariants": ["x"], "musts": ["x"], "next_id": UUID(int=1),
    "subject": UUID(int=1), "gateways": ["x"], "lanes": ["x"], "queues": ["x"], "realm": "x",
    **dict.fromkeys(("upto", "complete_after", "stored", "events", "digest"), 1),
    "taken": True, "wanted": [1], "events_told": [1], "account": "x", "address": "x", "said": "x",
    **dict.fromkeys(("url", "secret", "test"), "x"), "kinds": ["x"], "is_late": True,
    **dict.fromkeys(("me", "endpoint"), UUID(int=1)), "patience": timedelta(days=1),
    "prefix": "x", "hash": b"", "expires_at": datetime(2026, 1, 1, tzinfo=UTC), "body": "x",
    **dict.fromkeys(("per_second", "status", "hours"), 1),
    "scopes": ["x"], "brands": ["x"], "subsidiaries": ["x"], "upstreams": ["x"],
    "unassigned": True, "places": [1], "numbers": [1], "number": 1, "paused": ["x"],
    "why": "{}", "filters": "{}", "configuration": "{}", "detail": "{}", "rate": 1.0, "step": "x",
    **dict.fromkeys(("older_than", "within"), 1.0),
    **dict.fromkeys(("by", "note", "universe", "driver", "plan", "state", "waits_for"), "x"),
    **dict.fromkeys(("all_at_once", "named", "ended"), True),
    **dict.fromkeys(("batch", "batch_left", "looked_at", "sent", "done", "failed"), 1),
    **dict.fromkeys(("skipped", "total", "after"), 1), "paced_at": datetime(2026, 1, 1, tzinfo=UTC),
}  # fmt: skip


# An import writes past SQLAlchemy, out of temporary tables.
COPIED = (
    arrivals.copy_customers, arrivals.copy_methods, arrivals.copy_agreements,
    arrivals.copy_services,
)  # fmt: skip
EXPLAINED = re.compile(r"(\s|--.*\n)*(SELECT|INSERT|UPDATE|DELETE|WITH|LOCK)\b")


@dataclass(frozen=True, slots=True)
class Right:
    """A verb on a table or one of its columns, or a function that may be called."""

    role: str
    verb: str
    what: str
    column: str | None = None

    def __str__(self) -> str:
        column = f" ({self.column})" if self.column else ""
        return f"{self.role}: {self.verb}{column} on {self.what}"

    @property
    def revoke(self) -> str:
        column = f" ({self.column})" if self.column else ""
        kind = "FUNCTION " if self.verb == "EXECUTE" else ""
        return f"REVOKE {self.verb}{column} ON {kind}{self.what} FROM {self.role}"


@dataclass(slots=True)
class Seen:
    """What was executed.

    Attributes:
        statements: role -> each statement once, with its parameters.
        asked: (role, step, queue) of what was enqueued.
    """

    statements: dict[str, dict[str, Statement]]
    asked: set[tuple[str, str, str]]


@contextmanager
def recorded() -> Iterator[Seen]:
    """What each role executes meanwhile."""
    seen = Seen({f"autorenew_{role}": {} for role in ROLES}, set())

    def see(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        role = connection.engine.url.username
        of_role = seen.statements.get(role)
        if of_role is not None and EXPLAINED.match(statement):
            of_role.setdefault(statement, (statement, parameters))
            if "enqueue_tasks" in statement:
                seen.asked |= {(role, parameters["name"], q) for q in parameters["queues"]}

    event.listen(Engine, "before_cursor_execute", see)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", see)


def live(world: Life) -> None:
    """What customers, operators and time do to a fleet within two months."""
    # Each process does so for itself when it starts; these share what they know.
    for role in ROLES:
        VirtualClock(world.fleet.engine(role)).now()
        if role not in ("relay", "exporter", "readonly", "events"):
            with world.fleet.engine(role).connect() as tx:
                CatalogueCache().current(tx)
    subsidiaries = [replace(given.FR, delivery_emails=True), given.IE]
    with world.fleet.owner.begin() as tx:
        save(tx, Catalogue(subsidiaries, [given.TERMS], given.CATALOGUE.plans.values()))
    with world.fleet.engine("api").begin() as tx:  # an endpoint that may not be connected to
        webhooks.add(tx, "shop", "https://127.0.0.1:9/", "shop", [], "whsec_AAAA")
    faults = world.fleet.simulator.simulator.faults
    first = world.order(line("site", quantity=2), line("server"), line("vm"), line("phone"))
    faults.add(DECLINE | {"customer": "bob"})
    faults.add({"fault": "refuse", "operation": "create", "customer": "carol"})
    saved = {name: v for name, v in order("k-2").items() if name != "payment_method"}
    world.send(saved, order("k-3", customer="bob"), order("k-4", customer="carol"))
    world.fleet.intake.place("shop", "python", [b"nonsense", body(order("k-5", line("gone")))])
    import_services(
        world.fleet.engine("api"), CatalogueCache(), SystemClock(),
        io.BytesIO(ndjson(row(), row(customer="dave", resource_id="r-2"))), "ndjson",
        lambda reject: None, realm="shop",
    )  # fmt: skip
    with world.fleet.engine("api").begin() as tx:
        waiting = failed.list_failed(tx)
        failed.retry(tx, waiting)
    world.fleet.settle(30)
    with world.fleet.engine("api").begin() as tx:
        give_up(tx, waiting[0].subject)
        lanes.pause(tx, "destructive", "x")
        lanes.resume(tx, "destructive")
    world.fleet.settle(30)
    accepts(world)
    world.send(order("k-6", *map(line, ("site", "server", "vm", "phone")), customer="erin"))
    with world.fleet.engine("api").begin() as tx:
        hers = [s.id for s in world.services() if s.customer_id == "erin"]
        now = world.fleet.clock.now()
        assert suspending.suspend(tx, hers, "abuse", CatalogueCache().current(tx), now)
        assert suspending.unsuspend(tx, hers, CatalogueCache().current(tx), now)
        assert ending.end(tx, hers, "abuse", CatalogueCache().current(tx), now)
    world.fleet.settle(30)

    one, two, three, *_ = (s for s in world.services() if s.customer_id == "alice")
    world.click("stop", one)
    world.click("resume", one)
    world.click("mode", two, mode="manual")
    world.command("payment_method", payment_method="tok-new")
    world.fleet.mailbox.refuse("alice@*")
    world.command("accept", contracts=[{"contract": "terms", "version": 2}])
    world.renew(two)
    declines(world)
    world.pass_until(first, -2)
    world.click("stop", three)  # while it is on a request
    world.command("customer", email="alice.new@example.com", country="BE", name="Alice")
    world.pass_until(first, 8)
    accepts(world)
    world.renew(one)
    world.pass_until(first, 33)
    with world.fleet.engine("billing").connect() as tx:
        books = world.fleet.books().money()
        reconcile.compare(tx, books, CatalogueCache().current(tx), world.fleet.clock.now())
    with world.fleet.engine("api").connect() as tx:
        assert timelines.of_order(tx, one.order_id)
    moving.plan(world, {"currency": "CHF"}, now=False)
    world.fleet.settle(30)
    world.roll_out("ovh")


def granted(tx: Connection) -> list[Right]:
    """What the roles were granted; who only reads reads everything on purpose."""
    rows = [
        Right(grant.role, grant.verb, grant.name, grant.column_name)
        for grant in tx.execute(rights._GRANTS)
    ]
    rows += [Right(row.role, "EXECUTE", row.name) for row in tx.execute(rights._FUNCTIONS)]
    return [right for right in rows if right.role != "autorenew_readonly"]


def rare(tx: Connection, role: str) -> list[Statement]:
    statements = []
    for one in RARE.get(role, []):
        clause = text(one.sql) if isinstance(one, Bulk) else one
        compiled = clause.compile(tx.engine)
        values = {name: SAMPLES.get(name, [UUID(int=1)]) for name in compiled.params}
        statements.append((str(compiled), values))
    return statements


def fails(tx: Connection, role: str, statement: Statement) -> bool:
    """Whether a role lacks a right for it; nothing is executed."""
    sql, parameters = statement
    with tx.begin_nested() as savepoint:
        tx.exec_driver_sql(f"SET LOCAL ROLE {role}")
        try:
            tx.exec_driver_sql(sql if "LOCK TABLE" in sql else f"EXPLAIN {sql}", parameters)
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) != "42501":
                raise
            return True
        finally:
            savepoint.rollback()
    return False


def test_every_right_of_a_role_is_used(life: Any, database: Database) -> None:
    with recorded() as seen:
        world = life()
        live(world)
        world.clean()

    unused = []
    with database.owner.connect() as tx:
        for create in (c._create for c in COPIED):
            tx.exec_driver_sql(create.replace("ON COMMIT DROP", ""))
            tx.exec_driver_sql("GRANT ALL ON ALL TABLES IN SCHEMA pg_temp TO autorenew_api")
        statements = {
            role: [*of_role.values(), *rare(tx, role.removeprefix("autorenew_"))]
            for role, of_role in seen.statements.items()
        }
        statements["autorenew_api"] += [(c._insert, None) for c in COPIED]
        for role, of_role in statements.items():
            assert [s for s in of_role if fails(tx, role, s)] == []
        for right in granted(tx):
            about = [s for s in statements[right.role] if re.search(rf"\b{right.what}\b", s[0])]
            with tx.begin_nested() as savepoint:
                tx.exec_driver_sql(right.revoke)
                if not any(fails(tx, right.role, statement) for statement in about):
                    unused.append(str(right))
                savepoint.rollback()
        tx.rollback()

    assert set(unused) == OF_BEFORE
    known = database.all("SELECT role, step, queue FROM enqueuers")
    assert {tuple(row) for row in known} == seen.asked | RARELY_ASKED
