"""Views: what is shown of orders, services, customers and documents, and to whom."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from producers.views import customers, documents, orders, plans, search, services
from producers.views.scope import CursorInvalid, Scope
from producers.views.services import Wanted
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache
from schemas.values import Money, ServiceState
from tests.conftest import Database
from tests.support.databases import Databases
from tests.support.everything import Everything
from tests.support.given import line, order
from tests.support.life import Life, lasting

SHOP = Scope(realm="shop", upstreams=("shop",))
OTHER = Scope(realm="other", upstreams=("other",))


def filled(world: Life) -> Life:
    """Alice has a site and two machines, delivered; another upstream's customer has a site."""
    world.order(line("site", domain="Example.com"), line("vm", quantity=2))
    world.fleet.intake.place("other", "python", [_body(order("k-1", customer="oscar"))])
    world.fleet.settle(30)
    return world


@pytest.fixture
def world(life: Any) -> Life:
    """For a test that changes something."""
    return filled(life())


@pytest.fixture(scope="module")
def still(
    postgres: Any, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Life]:
    """For all tests that change nothing."""
    folder = tmp_path_factory.mktemp("views")
    with lasting(postgres, databases, folder, "views") as world:
        yield filled(world)


def _body(document: Any) -> bytes:
    from tests.support.given import body

    return body(document)


@pytest.fixture
def tx(request: pytest.FixtureRequest) -> Any:
    """Of the test's own ``world``, if it has one."""
    name = "world" if "world" in request.fixturenames else "still"
    with request.getfixturevalue(name).fleet.engine("readonly").connect() as tx:
        yield tx


@pytest.fixture
def catalogue(tx: Connection) -> Catalogue:
    return CatalogueCache().current(tx)


class TestOrder:
    def test_shows_lines_services_payment_and_what_happened(self, tx: Connection) -> None:
        found = orders.find(tx, "k-1", upstream="shop")
        assert found is not None
        shown = orders.get(tx, found.id, scope=SHOP)

        assert shown is not None
        assert (shown.state, shown.is_ended, shown.customer) == ("delivered", True, "alice")
        assert [(one.plan, one.quantity) for one in shown.lines] == [("site", 1), ("vm", 2)]
        assert shown.lines[0].renewal == Money(3787, "EUR")
        assert {one.state for one in shown.services} == {"active"}
        assert shown.payment is not None
        assert shown.payment.total == Money(13633, "EUR")
        assert [c.state for c in shown.payment.charges] == ["succeeded"]
        assert shown.payment.invoice is not None
        told = {(one.about, one.event) for one in shown.timeline}
        assert {("order", "order.accepted"), ("service 2.1", "service.delivered")} <= told
        worked = [one for one in shown.timeline if one.waited is not None]
        assert worked
        assert all(one.attempt == 1 for one in worked)

    def test_key_of_several_upstreams_needs_the_upstream(self, tx: Connection) -> None:
        with pytest.raises(orders.SeveralOrders, match="other, shop"):
            orders.find(tx, "k-1")
        found = orders.find(tx, "k-1", scope=OTHER)
        assert found is not None
        assert found.upstream == "other"

    def test_of_another_realm_or_brand_does_not_exist(self, tx: Connection) -> None:
        found = orders.find(tx, "k-1", upstream="shop")
        assert found is not None
        assert orders.find(tx, "k-1", upstream="shop", scope=OTHER) is None
        assert orders.get(tx, found.id, scope=OTHER) is None
        ovh = Scope("shop", ("shop",), brands=("ovh",))
        assert orders.get(tx, found.id, scope=ovh) is None
        assert orders.get(tx, found.id, scope=Scope("shop", ("shop",), None, ("IE",))) is None

    def test_who_of_the_house_did_something_is_not_told_to_a_realm(
        self, tx: Connection, world: Life
    ) -> None:
        found = orders.find(tx, "k-1", upstream="shop")
        assert found is not None
        world.database.run(
            "INSERT INTO events (subject, name, detail) VALUES (:id, 'order.noted', :detail)",
            id=found.id,
            detail='{"by": "eve", "because": "secret", "code": "x"}',
        )
        everything = orders.get(tx, found.id)
        theirs = orders.get(tx, found.id, scope=SHOP)
        assert everything is not None
        assert theirs is not None
        assert everything.timeline[-1].detail == {"by": "eve", "because": "secret", "code": "x"}
        assert theirs.timeline[-1].detail == {"code": "x"}


class TestService:
    def test_says_what_is_next_and_why_and_what_it_will_cost(
        self, tx: Connection, catalogue: Catalogue, still: Life
    ) -> None:
        site = next(s for s in still.services() if s.plan == "site")
        shown = services.get(tx, site.id, catalogue, still.fleet.clock.now(), scope=SHOP)

        assert shown is not None
        assert (shown.next.step, shown.next.why) == ("remind", "notice_due")
        assert shown.expires_on == still.expiry(site)
        assert shown.renewal is not None
        assert (shown.renewal.periods, shown.renewal.total) == (1, Money(4544, "EUR"))
        assert shown.renewal.charged_at is not None
        assert shown.decision == "will_renew"
        assert "service.delivered" in [one.event for one in shown.timeline]
        assert services.get(tx, site.id, catalogue, still.fleet.clock.now(), scope=OTHER) is None

    def test_each_answer_of_the_rule_has_its_reason(
        self, tx: Connection, catalogue: Catalogue, world: Life
    ) -> None:
        hers = [s for s in world.services() if s.customer_id == "alice"]
        site, one, two = sorted(hers, key=lambda s: (s.line, s.unit))
        now = world.fleet.clock.now()

        def why(service: Any, at: Any = now) -> tuple[Any, str]:
            with world.fleet.engine("readonly").connect() as tx:
                shown = services.get(tx, service.id, catalogue, at)
            assert shown is not None
            return shown.next.step, shown.next.why

        world.click("stop", one)
        world.click("mode", two, mode="manual")
        world.pass_until(site, -10)
        assert why(two, world.fleet.clock.now())[1] in ("notice_due", "waits_for_customer")
        world.pass_until(site, -1)
        late = world.fleet.clock.now()
        assert why(one, late) == ("terminate", "stopped")
        world.database.run("DELETE FROM rollouts")
        bare = CatalogueCache()
        with world.fleet.engine("readonly").connect() as fresh:
            unrolled = bare.current(fresh)
            world.database.run("UPDATE catalogue_version SET version = version + 1")
            unrolled = CatalogueCache().current(fresh)
            shown = services.get(fresh, two.id, unrolled, late)
        assert shown is not None
        assert shown.next.why == "not_rolled_out"

    def test_lists_by_parts_with_filters(self, tx: Connection) -> None:
        seen: list[Any] = []
        cursor = None
        while True:
            page = services.list_services(tx, Wanted(), scope=SHOP, limit=2, cursor=cursor)
            seen += page.items
            if (cursor := page.next) is None:
                break
        assert len(seen) == 3
        assert [one.id for one in seen] == sorted(one.id for one in seen)
        assert {one.customer for one in seen} == {"alice"}
        for wanted, count in [
            (Wanted(customer="alice", plan="vm"), 2),
            (Wanted(plan="site"), 1),
            (Wanted(state=ServiceState.SUSPENDED), 0),
            (Wanted(held=True), 0),
            (Wanted(brand="soyoustart"), 2),
        ]:
            assert len(services.list_services(tx, wanted, scope=SHOP).items) == count, wanted
        narrow = Scope("shop", ("shop",), brands=("ovh",))
        assert [s.plan for s in services.list_services(tx, Wanted(), scope=narrow).items] == [
            "site"
        ]
        with pytest.raises(CursorInvalid):
            services.list_services(tx, Wanted(), cursor="nonsense")

    def test_part_that_looked_at_enough_says_where_to_go_on(
        self, tx: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(services, "SCANNED", 1)
        found, parts, cursor = 0, 0, None
        while True:
            page = services.list_services(tx, Wanted(plan="site"), scope=SHOP, cursor=cursor)
            found, parts = found + len(page.items), parts + 1
            if (cursor := page.next) is None:
                break
        assert (found, parts) == (1, 5)


class TestCustomer:
    def test_shows_how_they_pay_without_a_token(self, tx: Connection) -> None:
        shown = customers.get(tx, "alice", scope=SHOP)
        assert shown is not None
        assert [(m.gateway, m.is_saved) for m in shown.payment_methods] == [("default", True)]
        assert [(a.contract, a.version) for a in shown.agreements] == [("terms", 2)]
        assert "tok-alice" not in repr(shown)
        assert customers.get(tx, "alice", scope=OTHER) is None
        assert customers.get(tx, "oscar", scope=SHOP) is None

    def test_customer_without_a_realm_is_shown_to_those_who_see_all(
        self, tx: Connection, world: Life
    ) -> None:
        world.database.run("UPDATE customers SET realm = NULL WHERE id = 'alice'")
        assert customers.get(tx, "alice") is not None
        assert customers.get(tx, "alice", scope=SHOP) is None

    def test_upcoming_is_what_is_charged_then(
        self, tx: Connection, catalogue: Catalogue, world: Life
    ) -> None:
        site = next(s for s in world.services() if s.plan == "site")
        now = world.fleet.clock.now()
        first = customers.upcoming(tx, "alice", catalogue, now, limit=2, scope=SHOP)
        rest = customers.upcoming(
            tx, "alice", catalogue, now, limit=2, scope=SHOP, cursor=first.next
        )
        said = {one.service: one for one in (*first.items, *rest.items)}
        tx.rollback()

        assert len(said) == 3
        renewal = said[site.id].renewal
        assert renewal is not None
        charged_at = said[site.id].charged_at
        assert charged_at is not None
        world.fleet.pass_time(charged_at - now + timedelta(hours=1))
        invoices, more = documents.invoices_of_customer(tx, "alice", scope=SHOP)
        assert more is None
        assert invoices[0].total == Money(3 * 3787 + 2272, "EUR")  # 20 % of all, rounded once
        assert renewal.total == Money(4544, "EUR")

    def test_emails_name_their_notices(self, tx: Connection, world: Life) -> None:
        site = next(s for s in world.services() if s.plan == "site")
        world.pass_until(site, -5)
        sent = customers.emails(tx, "alice", scope=SHOP)
        assert sent
        assert all(email.sent_at for email in sent)
        assert {kind.split("-")[0] for email in sent for kind in email.kinds} == {"before"}
        ovh = Scope("shop", ("shop",), brands=("kimsufi",))
        assert customers.emails(tx, "alice", scope=ovh) == []


class TestDocuments:
    def test_invoice_is_found_by_its_number_by_its_realm_alone(self, tx: Connection) -> None:
        (listed,), _ = documents.invoices_of_customer(tx, "alice")
        shown = documents.invoice(tx, listed.number, scope=SHOP)
        assert shown is not None
        assert shown.total == listed.total == Money(13633, "EUR")
        assert shown.order_key == "k-1"
        assert sum(one.net.amount for one in shown.lines) == shown.net.amount
        assert documents.invoice(tx, listed.number, scope=OTHER) is None
        for brand in ("ovh", "soyoustart"):  # it has lines of both
            one = Scope("shop", ("shop",), brands=(brand,))
            assert documents.invoice(tx, listed.number, scope=one) is None
            assert documents.invoices_of_customer(tx, "alice", scope=one)[0] == []

    @pytest.mark.parametrize(
        "number", ["", "-", "FR", "FR-", "FR-x", "FR-²", "x" * 300, "FR-9" * 9]
    )
    def test_what_is_no_number_is_not_found(self, tx: Connection, number: str) -> None:
        assert documents.invoice(tx, number) is None
        assert documents.credit_note(tx, number) is None


def test_what_everything_left_is_shown(everything: Everything) -> None:
    """Whatever has happened to them, all can be shown as the role that only reads."""
    engine = everything.fleet.engine("readonly")
    now = everything.fleet.clock.now()
    with engine.connect() as tx:
        catalogue = CatalogueCache().current(tx)
        cursor, count = None, 0
        while True:
            page = services.list_services(tx, Wanted(), cursor=cursor)
            for row in page.items:
                shown = services.get(tx, row.id, catalogue, now)
                assert shown is not None
                count += 1
            if (cursor := page.next) is None:
                break
        assert count == tx.execute(text("SELECT count(*) FROM services")).scalar_one() > 5
        for id_ in tx.execute(text("SELECT id FROM orders")).scalars().all():
            assert orders.get(tx, id_) is not None
        for customer in tx.execute(text("SELECT id FROM customers")).scalars().all():
            assert customers.get(tx, customer) is not None
            customers.emails(tx, customer)
            customers.upcoming(tx, customer, catalogue, now)
            documents.invoices_of_customer(tx, customer)
            orders.list_of_customer(tx, customer)
        numbers = tx.execute(text("SELECT series, number FROM invoices")).all()
        for series, number in numbers:
            assert documents.invoice(tx, documents.number_of(series, number)) is not None
        noted = tx.execute(text("SELECT series, number FROM credit_notes")).all()
        assert numbers
        assert noted
        for series, number in noted:
            shown_note = documents.credit_note(tx, documents.number_of(series, number))
            assert shown_note is not None
            assert sum(one.net.amount for one in shown_note.lines) == shown_note.net.amount


class TestSearch:
    @pytest.mark.parametrize(
        ("wanted", "kinds"),
        [
            ("k-1", {"order"}),
            ("alice", {"customer"}),
            ("ALICE@example.com", {"customer"}),
            ("EXAMPLE.com", {"service"}),
            ("oscar", set()),
            ("", set()),
            ("nothing\0", set()),
        ],
    )
    def test_finds_by_every_name_in_the_realm(
        self, tx: Connection, wanted: str, kinds: set[str]
    ) -> None:
        assert {hit.kind for hit in search.search(tx, wanted, scope=SHOP)} == kinds

    def test_finds_ids_and_numbers(self, tx: Connection, still: Life) -> None:
        service = still.services()[0]
        (listed,), _ = documents.invoices_of_customer(tx, "alice")
        for wanted, kind in [
            (str(service.id), "service"),
            (str(service.order_id), "order"),
            (listed.number, "invoice"),
        ]:
            assert [hit.kind for hit in search.search(tx, wanted, scope=SHOP)] == [kind]
            assert search.search(tx, wanted, scope=OTHER) == []
        assert search.search(tx, str(uuid.uuid4())) == []


def test_catalogue_is_narrowed(catalogue: Catalogue) -> None:
    whole = plans.catalogue(catalogue)
    narrow = plans.catalogue(catalogue, scope=Scope(brands=("kimsufi",), subsidiaries=("IE",)))
    assert {plan.code for plan in whole.plans} >= {"site", "server", "vm", "phone"}
    assert [plan.code for plan in narrow.plans] == ["server"]
    assert [p.subsidiary for p in narrow.plans[0].prices] == ["IE"]
    assert [s.code for s in narrow.subsidiaries] == ["IE"]


def test_lists_use_indexes(database: Database) -> None:
    """No view reads a table whole, whatever its planner would prefer for a small one."""
    given = {"customer": "c", "before": None, "limit": 1, "brands": None, "subsidiaries": None}
    found = []
    with database.engine("readonly").connect() as tx:
        tx.execute(text("SET enable_seqscan = off"))
        for query, more in [
            (documents._OF_CUSTOMER, {}),
            (orders._OF_CUSTOMER, {"upstreams": None}),
            (search._CUSTOMERS, {"text": "x", "realm": None, "most": 1}),
            (search._BY_DOMAIN, {"text": "x", "realm": None, "most": 1}),
            (search._ORDERS, {"text": "x", "upstreams": None, "most": 1}),
        ]:
            used = {n: v for n, v in (given | more).items() if n in query.compile().params}
            plan = tx.execute(text(f"EXPLAIN {query.text}"), used).scalars().all()
            found += [row for row in plan if "Seq Scan" in row]
    assert found == []
