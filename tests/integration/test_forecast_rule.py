"""The forecast's SQL decides about every service as the rule in Python does."""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitoring.forecast import By, Decision, forecast
from schemas.catalogue import Catalogue, Subsidiary
from schemas.catalogue.store import save
from schemas.clock import local_midnight
from schemas.rules import lifecycle, outlook
from schemas.rules.payable import PaymentMethod
from schemas.rules.policies import DEFAULT_POLICY
from schemas.values import Period, RenewalMode, ResourceState, ServiceState
from tests.conftest import Database
from tests.support.given import CATALOGUE, FR, IE, TERMS, changed

TODAY = date(2026, 9, 15)
# Some charges, and some last days of cards, are after it.
UNTIL = TODAY + timedelta(days=60)
CA = Subsidiary("CA", "Hosting Inc.", "CA", "CAD", "America/Toronto", "en")
SITE = CATALOGUE.plans["site"]
POLICIES = {
    "site": DEFAULT_POLICY,
    "early": replace(DEFAULT_POLICY, code="early", charges=(-20, -2)),
    "late": replace(DEFAULT_POLICY, code="late", charges=(2, 4), suspend=10),
    "free": replace(DEFAULT_POLICY, code="no-grace", charges=(-1, 0), suspend=None),
    "patient": replace(DEFAULT_POLICY, code="patient", catch_up=3),
}
PLANS = {
    code: changed(SITE, code=code, policy=policy, contract=None if code == "free" else TERMS.code)
    for code, policy in POLICIES.items()
}
PLANS["gift"] = changed(CATALOGUE.plans["gift"], contract=None)
SUBSIDIARIES = {subsidiary.code: subsidiary for subsidiary in (FR, IE, CA)}


@dataclass(frozen=True)
class Facts:
    """A service as its customer left it; days count from today."""

    subsidiary: str
    plan: str
    expires_in: int
    mode: RenewalMode
    agreed_version: int | None
    has_method: bool
    card_ends_in: int | None
    months: int = 1

    @property
    def due_on(self) -> date:
        return TODAY + timedelta(days=self.expires_in)

    @property
    def card_until(self) -> date | None:
        return None if self.card_ends_in is None else TODAY + timedelta(days=self.card_ends_in)


facts = st.builds(
    Facts,
    subsidiary=st.sampled_from(sorted(SUBSIDIARIES)),
    plan=st.sampled_from(sorted(PLANS)),
    expires_in=st.integers(-100, 100),
    mode=st.sampled_from(RenewalMode),
    agreed_version=st.sampled_from([None, TERMS.version - 1, TERMS.version]),
    has_method=st.booleans(),
    card_ends_in=st.none() | st.integers(-30, 110),
    months=st.sampled_from([1, 12]),
)
rollouts = st.dictionaries(
    st.sampled_from(sorted(SUBSIDIARIES)), st.integers(-40, 110).map(lambda d: date.fromordinal(
        TODAY.toordinal() + d)),
)  # fmt: skip


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(services=st.lists(facts, min_size=20, max_size=60), starts=rollouts)
def test_the_sql_of_the_forecast_decides_as_the_rule_does(
    database: Database, services: list[Facts], starts: dict[str, date]
) -> None:
    given_in_the_database(database, services, starts)

    with database.engine("readonly").connect() as tx:
        rows = forecast(tx, today=TODAY, until=UNTIL, by=By.DAY)

    counted: Counter[tuple[date | None, Decision]] = Counter()
    for row in rows:
        counted[row.start, row.decision] += row.services
    expected = Counter(
        (s.due_on if s.expires_in >= 0 else None, by_the_rule(s, starts))
        for s in services
        if s.due_on < UNTIL
    )
    assert counted == expected


@pytest.mark.parametrize(
    ("card_ends_in", "decision"), [(60, Decision.UNDECIDED_PAYMENT), (61, Decision.WILL_RENEW)]
)
def test_a_card_may_expire_after_the_forecast_ends_and_before_the_charge(
    database: Database, card_ends_in: int, decision: Decision
) -> None:
    # Charged for the first time two days after the expiry.
    last = Facts("FR", "late", 59, RenewalMode.AUTOMATIC, TERMS.version, True, card_ends_in)
    given_in_the_database(database, [last], {"FR": TODAY})

    with database.engine("readonly").connect() as tx:
        rows = forecast(tx, today=TODAY, until=UNTIL, by=By.DAY)

    assert [row.decision for row in rows] == [decision]
    assert by_the_rule(last, {"FR": TODAY}) is decision


def by_the_rule(facts: Facts, starts: dict[str, date]) -> Decision:
    timezone = SUBSIDIARIES[facts.subsidiary].timezone
    plan = PLANS[facts.plan]
    starts_on = starts.get(facts.subsidiary)
    period = Period(facts.months)
    price = plan.renewal(facts.subsidiary, period)
    missing = plan.contract is not None and (facts.agreed_version or 0) < TERMS.version
    service = lifecycle.Service(
        state=ServiceState.ACTIVE,
        desired=ResourceState.ACTIVE,
        mode=facts.mode,
        subsidiary=facts.subsidiary,
        timezone=timezone,
        period=period,
        expires_at=local_midnight(facts.due_on, timezone),
        began_at=local_midnight(period.end(facts.due_on, -1), timezone),
        starts_at=local_midnight(starts_on, timezone) if starts_on else None,
        missing_contract=TERMS.version if missing else None,
        is_free=price is not None and price.amount == 0,
    )
    method = PaymentMethod(uuid.uuid4(), facts.card_until) if facts.has_method else None
    return outlook.forecast(service, plan.policy, method, TODAY)


def given_in_the_database(
    database: Database, services: Sequence[Facts], starts: dict[str, date]
) -> None:
    with database.owner.begin() as tx:
        for table in ("services", "payment_methods", "customers", "rollouts"):
            tx.exec_driver_sql(f"DELETE FROM {table}")
        save(tx, Catalogue(SUBSIDIARIES.values(), [TERMS], PLANS.values()))
        tx.exec_driver_sql(
            "INSERT INTO customers (id, subsidiary, country, language, email)"
            " VALUES ('alice', 'FR', 'FR', 'fr', 'alice@example.com')"
        )
        for subsidiary, day in starts.items():
            tx.exec_driver_sql(
                "INSERT INTO rollouts (brand, subsidiary, starts_on) VALUES ('ovh', %s, %s)",
                (subsidiary, day),
            )
        methods = [uuid.uuid4() if s.has_method else None for s in services]
        tx.exec_driver_sql(
            "INSERT INTO payment_methods (id, customer_id, token, expires_on)"
            " VALUES (%s, 'alice', %s, %s)",
            [
                (method, str(method), service.card_until)
                for service, method in zip(services, methods, strict=True)
                if method is not None
            ]
            or [(uuid.uuid4(), "unused", None)],
        )
        tx.exec_driver_sql(
            "INSERT INTO services (id, customer_id, subsidiary, plan, universe, brand, driver,"
            " configuration, period_months, mode, state, desired, paid_periods, expires_at,"
            " payment_method_id, agreed_version) VALUES (gen_random_uuid(), 'alice', %s, %s,"
            " 'web', 'ovh', 'web', '{}', %s, %s, 'active', 'active', 3, %s, %s, %s)",
            [
                (
                    s.subsidiary,
                    s.plan,
                    s.months,
                    s.mode,
                    local_midnight(s.due_on, SUBSIDIARIES[s.subsidiary].timezone),
                    method,
                    s.agreed_version,
                )
                for s, method in zip(services, methods, strict=True)
            ],
        )
