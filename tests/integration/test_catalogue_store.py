"""The catalogue in force: what a load changes, what it keeps, and which services it recomputes."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from schemas.catalogue import Catalogue, Contract, Option, Plan, Price
from schemas.catalogue.store import CatalogueCache, read, save, set_rollout
from schemas.errors import CatalogueError
from schemas.rules.policies import DEFAULT_POLICY, Policy, ReminderRule
from schemas.values import Money, Period, Universe
from tests.support import given
from tests.support.given import CATALOGUE, FR, IE, TERMS

MONTH, YEAR = Period(1), Period(12)
GENTLE = Policy(
    code="gentle",
    reminders=(20, 2),
    reminders_for=(
        ReminderRule("IE", YEAR, (90, 60), date(2027, 1, 1), "A law, s. 1"),
        ReminderRule("FR", None, (40,)),
        ReminderRule(None, Period(3), (10, 1)),
        ReminderRule(None, None, (5,)),
    ),
    charges=(-2, 0, 4),
    suspend=8,
    terminate=45,
    stop_reminder=3,
    notice=10,
    source="Terms of sale, s. 7",
)
SHORT = Policy(code="short", reminders=(9,), reminders_for=(), charges=(-1,), suspend=None)


def euros(renewal: int, setup: int = 0) -> Price:
    return Price(Money(setup, "EUR"), Money(renewal, "EUR"))


PRICES = {("FR", MONTH): euros(300), ("FR", YEAR): euros(3000, 100), ("IE", MONTH): euros(350)}
OTHER_TERMS = Contract("other", 7, "Other terms", "https://example.com/other/7")


def plan(code: str, **changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "code": code,
        "name": code.title(),
        "universe": Universe.WEB,
        "brand": "ovh",
        "driver": "web",
        "contract": "terms",
        "prices": PRICES,
    }
    return Plan(**(fields | changes))


# Plans of every kind of policy, under two contracts and none.
PLANS = {
    "plain": plan("plain"),
    "gentle": plan("gentle", policy=GENTLE),
    "gentler": plan("gentler", policy=GENTLE, contract="other", quantity_min=2, quantity_max=3),
    "short": plan(
        "short",
        policy=SHORT,
        contract=None,
        universe=Universe.CLOUD,
        options={"image": Option(required=True, values=("a", "b")), "label": Option(False)},
    ),
}


def of(
    plans: Iterable[Plan] = PLANS.values(), contracts: Iterable[Contract] = (TERMS, OTHER_TERMS)
) -> Catalogue:
    return Catalogue([FR, IE], contracts, plans)


def changed(**plans: Plan) -> Catalogue:
    return of((PLANS | plans).values())


def gentle_is(policy: Policy) -> Catalogue:
    plans = {code: replace(PLANS[code], policy=policy) for code in ("gentle", "gentler")}
    return changed(**plans)


def load(database: Any, catalogue: Catalogue) -> int:
    with database.owner.begin() as tx:
        return save(tx, catalogue)


def roll_out(database: Any, brand: str, subsidiary: str, starts_on: date | None) -> int:
    with database.owner.begin() as tx:
        return set_rollout(tx, brand, subsidiary, starts_on)


def in_force(database: Any) -> Catalogue:
    with database.owner.connect() as tx:
        return read(tx)


def recomputed(database: Any) -> list[Any]:
    """The recomputations since the last call: (plans, brand, subsidiary)."""
    rows = database.all("SELECT plans, brand, subsidiary FROM recomputations ORDER BY id")
    database.run("DELETE FROM recomputations")
    return [tuple(row) for row in rows]


@pytest.fixture
def loaded(database: Any) -> Any:
    load(database, of())
    recomputed(database)
    return database


class TestRoundTrip:
    def test_catalogue_is_read_as_it_was_saved(self, loaded: Any) -> None:
        found = in_force(loaded)
        assert found.plans == PLANS
        assert found.contracts == {"terms": TERMS, "other": OTHER_TERMS}
        assert found.subsidiaries == {"FR": FR, "IE": IE}

    def test_policies_are_read_as_they_were_saved(self, loaded: Any) -> None:
        found = in_force(loaded)
        assert found.known_plan("gentle").policy == GENTLE
        assert found.known_plan("short").policy == SHORT
        assert found.known_plan("plain").policy == DEFAULT_POLICY
        # What is held for long is looked up all the time: it has to be hashable as before.
        assert {hash(p.policy) for p in found.plans.values()} == {
            hash(policy) for policy in (DEFAULT_POLICY, GENTLE, SHORT)
        }

    def test_a_plan_from_before_there_were_policies_has_the_default_one(self, loaded: Any) -> None:
        loaded.run("UPDATE plans SET policy = NULL WHERE code = 'gentle'")
        assert in_force(loaded).known_plan("gentle").policy == DEFAULT_POLICY

    def test_changed_policy_is_read_in_its_new_version(self, loaded: Any) -> None:
        later = replace(GENTLE, suspend=None, reminders_for=(), notice=0)
        load(loaded, gentle_is(later))
        assert in_force(loaded).known_plan("gentle").policy == later

    def test_every_load_is_a_new_version_and_read_again(self, loaded: Any) -> None:
        cache = CatalogueCache()
        with loaded.owner.connect() as tx:
            first = cache.current(tx)
            assert cache.current(tx) is first
        version = load(loaded, changed(plain=plan("plain", name="Renamed")))
        assert load(loaded, of()) == version + 1
        assert roll_out(loaded, "ovh", "FR", date(2026, 7, 1)) == version + 2
        with loaded.owner.connect() as tx:
            second = cache.current(tx)
        assert second is not first
        assert second.rollouts == {("ovh", "FR"): date(2026, 7, 1)}

    def test_failed_load_changes_nothing(self, loaded: Any) -> None:
        # Given a catalogue that no file could say, of a plan under a contract that is nowhere
        before = loaded.value("SELECT version FROM catalogue_version")
        broken = changed(plain=plan("plain", contract="nowhere", prices={}))
        with pytest.raises(Exception, match="contract"):
            load(loaded, broken)
        assert in_force(loaded).plans == PLANS
        assert loaded.value("SELECT version FROM catalogue_version") == before
        assert recomputed(loaded) == []


class TestOffSale:
    def test_plan_left_out_of_a_load_is_off_sale_and_renewed_at_its_last_prices(
        self, loaded: Any
    ) -> None:
        load(loaded, of([PLANS["plain"]]))

        found = in_force(loaded)
        assert set(found.plans) == {"plain"}
        assert found.plan("gentler") is None
        gone = found.known_plan("gentler")
        assert not gone.on_sale
        assert gone == replace(PLANS["gentler"], on_sale=False, prices={}, last_prices=PRICES)
        assert gone.price("FR", YEAR) is None
        assert gone.periods("FR") == []
        assert gone.renewal("FR", YEAR) == Money(3000, "EUR")
        assert gone.renewal("IE", YEAR) is None  # it never was sold so

    def test_plan_off_sale_keeps_its_policy(self, loaded: Any) -> None:
        load(loaded, of([PLANS["plain"]]))
        assert in_force(loaded).known_plan("gentler").policy == GENTLE

    def test_price_that_is_left_out_of_a_load_is_kept_for_renewals(self, loaded: Any) -> None:
        load(loaded, changed(plain=plan("plain", prices={("FR", MONTH): euros(320)})))

        found = in_force(loaded).plans["plain"]
        assert found.prices == {("FR", MONTH): euros(320)}
        assert found.last_prices == {("FR", YEAR): euros(3000, 100), ("IE", MONTH): euros(350)}
        assert found.periods("FR") == [MONTH]
        assert found.price("IE", MONTH) is None
        assert found.renewal("IE", MONTH) == Money(350, "EUR")

    def test_plan_on_sale_is_renewed_at_todays_price(self, loaded: Any) -> None:
        load(loaded, changed(plain=plan("plain", prices=PRICES | {("FR", MONTH): euros(320)})))
        found = in_force(loaded).plans["plain"]
        assert found.renewal("FR", MONTH) == Money(320, "EUR")
        assert found.last_prices == {}

    def test_price_off_sale_survives_any_number_of_loads(self, loaded: Any) -> None:
        for name in ("Once", "Twice"):
            load(loaded, of([plan("plain", name=name)]))
        assert in_force(loaded).known_plan("short").renewal("FR", MONTH) == Money(300, "EUR")

    def test_plan_back_on_sale_has_its_new_price_and_keeps_the_others_for_renewals(
        self, loaded: Any
    ) -> None:
        load(loaded, of([PLANS["plain"]]))
        load(loaded, changed(short=replace(PLANS["short"], prices={("FR", MONTH): euros(1)})))
        found = in_force(loaded).plans["short"]
        assert found.on_sale
        assert found.renewal("FR", MONTH) == Money(1, "EUR")
        assert found.renewal("FR", YEAR) == Money(3000, "EUR")
        assert ("FR", MONTH) not in found.last_prices

    def test_renewal_prefers_the_price_on_sale_to_the_last_one(self) -> None:
        both = plan("both", prices={("FR", MONTH): euros(2)}, last_prices=PRICES)
        assert both.renewal("FR", MONTH) == Money(2, "EUR")
        assert both.renewal("FR", YEAR) == Money(3000, "EUR")


class TestRollout:
    def test_renewal_is_off_until_it_is_switched_on(self, loaded: Any) -> None:
        assert in_force(loaded).rollouts == {}
        roll_out(loaded, "ovh", "FR", date(2026, 7, 1))
        roll_out(loaded, "kimsufi", "IE", date(2026, 8, 1))
        assert in_force(loaded).rollouts == {
            ("ovh", "FR"): date(2026, 7, 1),
            ("kimsufi", "IE"): date(2026, 8, 1),
        }

    def test_rollout_can_be_moved_to_another_day_and_switched_off(self, loaded: Any) -> None:
        roll_out(loaded, "ovh", "FR", date(2026, 7, 1))
        roll_out(loaded, "ovh", "IE", date(2026, 7, 1))
        roll_out(loaded, "ovh", "FR", date(2026, 9, 1))
        assert in_force(loaded).rollouts["ovh", "FR"] == date(2026, 9, 1)
        roll_out(loaded, "ovh", "FR", None)
        assert in_force(loaded).rollouts == {("ovh", "IE"): date(2026, 7, 1)}
        roll_out(loaded, "ovh", "FR", None)  # which it is

    def test_change_of_a_rollout_recomputes_the_services_concerned(self, loaded: Any) -> None:
        roll_out(loaded, "ovh", "FR", date(2026, 7, 1))
        assert recomputed(loaded) == [(None, "ovh", "FR")]
        roll_out(loaded, "ovh", "FR", None)
        assert recomputed(loaded) == [(None, "ovh", "FR")]

    def test_load_of_a_catalogue_does_not_change_the_rollout(self, loaded: Any) -> None:
        roll_out(loaded, "ovh", "FR", date(2026, 7, 1))
        load(loaded, CATALOGUE)
        assert in_force(loaded).rollouts == {("ovh", "FR"): date(2026, 7, 1)}


class TestRecomputations:
    def test_load_of_the_same_catalogue_recomputes_nothing(self, loaded: Any) -> None:
        load(loaded, of())
        assert recomputed(loaded) == []

    def test_new_plans_prices_names_and_plans_off_sale_recompute_nothing(self, loaded: Any) -> None:
        load(loaded, changed(new=plan("new", policy=replace(SHORT, code="new"))))
        load(loaded, changed(plain=plan("plain", name="Renamed", quantity_max=1)))
        load(loaded, changed(plain=plan("plain", prices={("FR", MONTH): euros(999)})))
        load(loaded, changed(short=replace(PLANS["short"], driver="cloud", options={})))
        load(loaded, of([PLANS["plain"]]))
        load(loaded, of())
        assert recomputed(loaded) == []

    @pytest.mark.parametrize(
        "later",
        [
            replace(GENTLE, reminders=(20, 1)),
            replace(GENTLE, reminders_for=GENTLE.reminders_for[1:]),
            replace(GENTLE, reminders_for=GENTLE.reminders_for[::-1]),
            replace(GENTLE, charges=(-2, 0)),
            replace(GENTLE, suspend=None),
            replace(GENTLE, terminate=46),
            replace(GENTLE, stop_reminder=4),
            replace(GENTLE, notice=11),
        ],
    )
    def test_any_change_of_a_policy_recomputes_its_plans(self, loaded: Any, later: Policy) -> None:
        load(loaded, gentle_is(later))
        assert recomputed(loaded) == [(["gentle", "gentler"], None, None)]

    def test_plan_that_gets_another_policy_is_recomputed(self, loaded: Any) -> None:
        load(loaded, changed(plain=plan("plain", policy=SHORT)))
        assert recomputed(loaded) == [(["plain"], None, None)]

    def test_new_version_of_a_contract_recomputes_its_plans(self, loaded: Any) -> None:
        later = replace(TERMS, version=TERMS.version + 1)
        load(loaded, of(contracts=[later, OTHER_TERMS]))
        [(plans, brand, subsidiary)] = recomputed(loaded)
        # Also what is only renewed: the plans of the tests' catalogue, not on sale any more.
        under_it = {code for code, plan in CATALOGUE.plans.items() if plan.contract == "terms"}
        assert plans == sorted({"plain", "gentle", *under_it})
        assert (brand, subsidiary) == (None, None)

    def test_contract_with_a_new_title_and_the_same_version_recomputes_nothing(
        self, loaded: Any
    ) -> None:
        load(loaded, of(contracts=[replace(TERMS, title="Renamed"), OTHER_TERMS]))
        assert recomputed(loaded) == []

    def test_plan_that_gets_another_contract_is_recomputed(self, loaded: Any) -> None:
        load(loaded, changed(plain=plan("plain", contract="other")))
        assert recomputed(loaded) == [(["plain"], None, None)]
        load(loaded, changed(plain=plan("plain", contract=None)))
        assert recomputed(loaded) == [(["plain"], None, None)]

    def test_change_of_a_policy_recomputes_its_plans_off_sale_too(self, loaded: Any) -> None:
        later = replace(GENTLE, terminate=60)
        load(loaded, of([replace(PLANS["gentle"], policy=later)]))
        assert recomputed(loaded) == [(["gentle", "gentler"], None, None)]
        assert in_force(loaded).known_plan("gentler").policy == later

    def test_changes_of_a_policy_and_a_contract_in_one_load_are_one_recomputation(
        self, loaded: Any
    ) -> None:
        later = replace(OTHER_TERMS, version=8)
        plans = PLANS | {"short": replace(PLANS["short"], policy=replace(SHORT, notice=1))}
        load(loaded, of(plans.values(), [TERMS, later]))
        assert recomputed(loaded) == [(["gentler", "short"], None, None)]


@pytest.mark.parametrize(
    ("field", "value"),
    [("currency", "CHF"), ("timezone", "Europe/London"), ("country", "CH")],
)
def test_a_load_cannot_change_a_subsidiary_that_services_depend_on(
    life: Any, database: Any, field: str, value: str
) -> None:
    life().order(given.line(quantity=3))
    changed = replace(FR, **{field: value})
    plans = [replace(p, prices={}) for p in CATALOGUE.plans.values()]

    with pytest.raises(CatalogueError) as refused:
        load(database, Catalogue([changed], CATALOGUE.contracts.values(), plans))

    before = getattr(FR, field)
    (problem,) = refused.value.problems
    assert problem.startswith(f"subsidiary FR: {field}: {before} becomes {value}, and 3 services")


def test_a_load_changes_a_subsidiary_that_nothing_depends_on(database: Any) -> None:
    moved = replace(IE, timezone="Europe/London", currency="GBP")
    plans = [replace(p, prices={}) for p in CATALOGUE.plans.values()]
    load(database, Catalogue([FR, moved], CATALOGUE.contracts.values(), plans))
    assert in_force(database).subsidiary("IE") == moved


@pytest.mark.parametrize(
    ("field", "value"), [("universe", Universe.CLOUD), ("brand", "other"), ("driver", "other")]
)
def test_a_load_cannot_move_a_plan_that_services_have(
    life: Any, database: Any, field: str, value: str
) -> None:
    life().order()
    plans = [replace(p, **{field: value}) for p in CATALOGUE.plans.values()]

    with pytest.raises(CatalogueError) as refused:
        load(database, Catalogue([FR, IE], CATALOGUE.contracts.values(), plans))

    assert "and 1 services" in str(refused.value)
    assert f": {field}: " in str(refused.value)


def test_a_price_in_another_currency_than_the_subsidiarys_is_refused(database: Any) -> None:
    dollars = Price(Money(0, "USD"), Money(300, "USD"))
    plans = [plan("odd", prices={("FR", MONTH): dollars})]

    with pytest.raises(CatalogueError, match="not in EUR"):
        load(database, Catalogue([FR, IE], [TERMS], plans))
