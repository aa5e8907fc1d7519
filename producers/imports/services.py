"""Which rows of an import become services, what they become, and what keeps the others out.

Rules on plain values: what the database knows is handed in, what is to be written is handed out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from producers.imports.arrivals import (
    AgreementRow,
    Arrivals,
    CustomerRow,
    MethodRow,
    ServiceRow,
)
from producers.imports.prospects import Look, Prospects
from producers.imports.rows import Row
from producers.intake import agreements
from producers.intake.realms import may_touch
from producers.renewals import next_steps
from producers.renewals.next_steps import Renewable
from schemas.catalogue import Catalogue, Plan, Subsidiary
from schemas.clock import local_date, local_midnight
from schemas.messages import Problem
from schemas.rules import facts, lifecycle, sellable
from schemas.rules.lifecycle import NextStep
from schemas.rules.payable import PaymentMethod
from schemas.settings import DEFAULT_GATEWAY
from schemas.values import (
    CustomerId,
    Period,
    RenewalMode,
    ResourceState,
    ServiceId,
    ServiceState,
)


class Customer(NamedTuple):
    subsidiary: str
    payment_method_id: UUID | None
    realm: str | None


@dataclass(slots=True)
class Books:
    """What is known: of a chunk's rows in the database, or of what is not written yet."""

    services: dict[UUID, tuple[str, str]] = field(default_factory=dict)
    customers: dict[str, Customer] = field(default_factory=dict)
    methods: set[UUID] = field(default_factory=set)
    agreed: dict[tuple[str, str], int] = field(default_factory=dict)

    def update(self, other: "Books") -> None:
        self.services |= other.services
        self.customers |= other.customers
        self.methods |= other.methods
        for key, version in other.agreed.items():
            self.agreed[key] = max(version, self.agreed.get(key, 0))


_NEEDED = ("subsidiary", "country", "language", "email")


class Judge:
    """Decides about the rows of one file, in their order.

    Args:
        realm: whose customers the new ones are.
        keep: nothing is written, so nothing that was taken in is ever in the database.
    """

    def __init__(self, now: datetime, *, realm: str, keep: bool = False) -> None:
        self._now = now
        self._realm = realm
        self._keep = keep
        self.prospects = Prospects()
        # Service -> the line that brought it first, and a hash of that row.
        self._seen: dict[UUID, tuple[int, int]] = {}
        self._books = Books()
        # What the chunk before brought, which may be being written.
        self._unwritten = Books()
        self._views = _Views(Catalogue([], [], []), now)

    def chunk(
        self, rows: list[Row], ids: Mapping[int, UUID], found: Books, catalogue: Catalogue
    ) -> tuple[Arrivals, dict[int, list[Problem]]]:
        """Decide about some more rows.

        Args:
            ids: line -> service, where the plan is known.
            found: what the database knows of these rows; what the chunk before brought may be
                missing, what came before that not.

        Returns:
            What is to be written, and what is wrong with the rows that are refused, by line.
        """
        if self._views.catalogue is not catalogue:
            self._views = _Views(catalogue, self._now)
        if self._keep:
            self._books.update(found)
        else:
            found.update(self._unwritten)
            self._books, self._unwritten = found, Books()
        arrivals = Arrivals()
        refused = {}
        for row in rows:
            if problems := self._take(row, ids.get(row.line), catalogue, arrivals):
                refused[row.line] = problems
        return arrivals, refused

    def _take(
        self, row: Row, service_id: UUID | None, catalogue: Catalogue, arrivals: Arrivals
    ) -> list[Problem]:
        """Take one row in, unless it is known; returns what is wrong with it."""
        service = row.service
        if service_id is not None and (owner := self._books.services.get(service_id)) is not None:
            if owner != (service.customer, service.plan):
                message = f"{service.resource_id} is a service of another customer or plan"
                return [_problem("resource_taken", "resource_id", message)]
            line, content = self._seen.setdefault(service_id, (row.line, hash(row.raw)))
            if content != hash(row.raw):
                message = f"line {line} says otherwise about {service.resource_id}"
                return [_problem("duplicate_in_file", "resource_id", message)]
            return []
        problems = list(_problems(row, self._books, catalogue, self._now))
        known = self._books.customers.get(service.customer)
        if known is not None and not may_touch(self._realm, known.realm):
            message = f"{service.customer} is a customer of realm {known.realm}"
            problems.append(_problem("customer_not_yours", "customer", message))
        if not problems:
            assert service_id is not None
            self._seen[service_id] = row.line, hash(row.raw)
            self._arrive(row, service_id, catalogue, arrivals)
        return problems

    def _arrive(self, row: Row, service_id: UUID, catalogue: Catalogue, arrivals: Arrivals) -> None:
        service, person, news = row.service, row.person, self._unwritten
        plan = catalogue.known_plan(service.plan)
        method_id = None
        if service.payment_method is not None:
            method_id = agreements.method_id(
                service.customer, service.payment_method, service.payment_gateway
            )
        customer = self._books.customers.get(service.customer)
        if customer is None:
            customer = Customer(person["subsidiary"], method_id, self._realm)
            self._books.customers[service.customer] = news.customers[service.customer] = customer
            arrivals.customers.append(
                CustomerRow(
                    id=service.customer,
                    subsidiary=person["subsidiary"],
                    country=person["country"],
                    language=person["language"],
                    email=person["email"],
                    vat_number=person.get("vat_number"),
                    name=person.get("name"),
                    company=person.get("company"),
                    address=person.get("address"),
                    payment_method_id=method_id,
                    realm=self._realm,
                )
            )
        if method_id is None:
            method_id = customer.payment_method_id
        elif service.payment_method is not None and method_id not in self._books.methods:
            self._books.methods.add(method_id)
            news.methods.add(method_id)
            arrivals.methods.append(
                MethodRow(
                    method_id,
                    service.customer,
                    service.payment_method,
                    row.pays_until,
                    service.payment_gateway or DEFAULT_GATEWAY,
                )
            )
        agreed = None
        if plan.contract is not None:
            key = service.customer, plan.contract
            agreed = self._books.agreed.get(key)
            version = service.contract_version
            if version is not None and version != agreed:
                arrivals.agreements.append(AgreementRow(*key, version))
                agreed = max(agreed or 0, version)
                self._books.agreed[key] = news.agreed[key] = agreed
        self._books.services[service_id] = news.services[service_id] = (
            service.customer,
            service.plan,
        )
        subsidiary = catalogue.subsidiary(customer.subsidiary)
        arrival = _arrival(
            row, service_id, plan, subsidiary, method_id, agreed, self._views, self._now
        )
        self._foresee(arrival, row)
        arrivals.services.append(_service(row, arrival, method_id, agreed, self._now))

    def _foresee(self, arrival: "_Arrival", row: Row) -> None:
        price = arrival.price
        if price is None:
            return
        method = None
        if arrival.payment_method_id is not None:
            # The last day of a method that was known before is not read here.
            method = PaymentMethod(arrival.payment_method_id, row.pays_until)
        periods = arrival.periods_to_reach(self._now) if arrival.look.is_late else 1
        is_free = arrival.view.is_free
        self.prospects.add(arrival.look, method, price, periods, is_free=is_free)


def _problems(row: Row, books: Books, catalogue: Catalogue, now: datetime) -> Iterator[Problem]:
    """What is wrong with a row that has the right shape and is not known."""
    service, person = row.service, row.person
    customer = books.customers.get(service.customer)
    code = customer.subsidiary if customer is not None else person.get("subsidiary")
    if customer is None:
        yield from _of_new_customer(row, catalogue, now)
    elif person.get("subsidiary", code) != code:
        message = f"{service.customer} is a customer of {code}"
        yield _problem("customer_mismatch", "subsidiary", message)
    if code is not None and code not in catalogue.subsidiaries:
        known = ", ".join(sorted(catalogue.subsidiaries))
        yield _problem("subsidiary_unknown", "subsidiary", f"not one of {known}")
        code = None
    plan = catalogue.find_plan(service.plan)
    if plan is None:
        yield _problem("plan_unknown", "plan", f"there is no plan {service.plan}")
    else:
        if code is not None:
            for obstacle in sellable.of_period(plan, code, row.period, renewed=True):
                yield _problem(*obstacle)
        yield from _of_contract(plan, service.contract_version, catalogue)
    if row.anchor is not None:
        yield from _of_anchor(row.anchor, row.expires_on, row.period)


def _of_new_customer(row: Row, catalogue: Catalogue, now: datetime) -> Iterator[Problem]:
    person = row.person
    if not person:
        message = f"{row.service.customer} is new: {', '.join(_NEEDED)} are needed"
        yield _problem("customer_unknown", "customer", message)
        return
    missing = [name for name in _NEEDED if name not in person]
    for name in missing:
        yield _problem("field_missing", name, f"{row.service.customer} is new: {name} is needed")
    subsidiary = catalogue.subsidiaries.get(person.get("subsidiary", ""))
    if subsidiary is not None and "country" in person:
        country, today = person["country"], local_date(now, subsidiary.timezone)
        for obstacle in sellable.of_customer(subsidiary, country, person.get("vat_number"), today):
            yield _problem(*obstacle)


def _of_contract(plan: Plan, version: int | None, catalogue: Catalogue) -> Iterator[Problem]:
    if version is None:
        return
    contract = sellable.contract_of(plan, catalogue)
    if contract is None:
        message = f"{plan.code} has no contract"
    elif version > contract.version:
        message = f"the newest version of {contract.code} is {contract.version}"
    else:
        return
    yield _problem("contract_version_invalid", "contract_version", message)


def _of_anchor(anchor: date, expires_on: date, period: Period) -> Iterator[Problem]:
    count = _periods_between(anchor, expires_on, period)
    if count >= 0 and period.end(anchor, count) == expires_on:
        return
    nearest = sorted({period.end(anchor, max(count + more, 0)) for more in (-1, 0, 1)})
    before = [f"{end}" for end in nearest if end < expires_on][-1:]
    after = [f"{end}" for end in nearest if end > expires_on][:1]
    message = f"{period} from {anchor} ends on {' or '.join(before + after)}, not on {expires_on}"
    yield _problem("expiry_off_anchor", "expires_on", message)


def _periods_between(anchor: date, expires_on: date, period: Period) -> int:
    months = (expires_on.year - anchor.year) * 12 + expires_on.month - anchor.month
    return months // period.months


def _problem(code: str, path: str, message: str) -> Problem:
    return Problem(code=code, path=path, message=message)


@dataclass(frozen=True, slots=True)
class _Arrival(Renewable):
    """A service that arrives, with what was decided about all that look like it."""

    decided: NextStep | None
    look: Look

    def next_step(self, now: datetime) -> NextStep | None:
        return self.decided


class _Views:
    """What the rule sees and says of services nothing has happened to yet.

    A few days, policies and modes make many services: deciding once for all that look alike
    saved a quarter of the time.
    """

    LIMIT = 100_000

    def __init__(self, catalogue: Catalogue, now: datetime) -> None:
        self.catalogue = catalogue
        self._now = now
        self._known: dict[tuple[Any, ...], tuple[facts.Service, NextStep | None, Look]] = {}

    def of(
        self,
        row: Row,
        plan: Plan,
        subsidiary: Subsidiary,
        began_on: date,
        agreed: int | None,
    ) -> tuple[facts.Service, NextStep | None, Look]:
        service = row.service
        starts_on = self.catalogue.rollouts.get((plan.brand, subsidiary.code))
        missing = sellable.missing_contract(plan, agreed, self.catalogue)
        price = plan.renewal(subsidiary.code, row.period)
        is_free = price is not None and price.amount == 0
        key = (
            plan.policy.code, subsidiary.code, starts_on, row.period.months, service.expires_on,
            began_on, service.mode, service.state, missing, is_free,
        )  # fmt: skip
        found = self._known.get(key)
        if found is None:
            timezone = subsidiary.timezone
            view = facts.Service(
                state=ServiceState(service.state),
                desired=ResourceState(service.state),
                mode=RenewalMode(service.mode),
                subsidiary=subsidiary.code,
                timezone=timezone,
                period=row.period,
                expires_at=local_midnight(row.expires_on, timezone),
                began_at=local_midnight(began_on, timezone),
                starts_at=local_midnight(starts_on, timezone) if starts_on else None,
                missing_contract=missing,
                taken_over_at=self._now,
                suspended_at=self._now if service.state == "suspended" else None,
                is_free=is_free,
            )
            next_ = lifecycle.next_step(view, plan.policy, self._now)
            found = view, next_, Look.of(view, plan.policy, self._now)
            if len(self._known) >= self.LIMIT:
                self._known.clear()
            self._known[key] = found
        return found


def _arrival(
    row: Row,
    service_id: UUID,
    plan: Plan,
    subsidiary: Subsidiary,
    method_id: UUID | None,
    agreed: int | None,
    views: _Views,
    now: datetime,
) -> _Arrival:
    service, period = row.service, row.period
    anchor = row.anchor or row.expires_on
    paid = _periods_between(anchor, row.expires_on, period)
    # Without an anchor too its last period began one period before the expiry.
    view, decided, look = views.of(row, plan, subsidiary, period.end(anchor, paid - 1), agreed)
    return _Arrival(
        id=ServiceId(service_id),
        order_id=None,
        customer_id=CustomerId(service.customer),
        subsidiary=subsidiary,
        plan=plan,
        universe=plan.universe,
        driver=plan.driver,
        detail=service.configuration.get("domain") or service.resource_id,
        period=period,
        anchor=anchor,
        paid_periods=paid,
        payment_method_id=method_id,
        noticed_under=view.expires_at,
        fixed=None,
        announced=None,
        request_id=None,
        requests=0,
        generation=1,
        next_subject=None,
        view=view,
        is_held=False,
        decided=decided,
        look=look,
    )


def _service(
    row: Row, arrival: _Arrival, method_id: UUID | None, agreed: int | None, now: datetime
) -> ServiceRow:
    """A row of ``services``, its next step decided."""
    service, plan, paid, view = row.service, arrival.plan, arrival.paid_periods, arrival.view
    step = next_steps.step_of(arrival, now)
    return ServiceRow(
        id=step.id,
        customer_id=service.customer,
        subsidiary=arrival.subsidiary.code,
        plan=plan.code,
        universe=plan.universe,
        brand=plan.brand,
        driver=plan.driver,
        configuration=service.configuration,
        period_months=arrival.period.months,
        mode=service.mode,
        state=service.state,
        anchor=arrival.anchor,
        paid_periods=paid,
        imported_periods=paid,
        expires_at=view.expires_at,
        desired=service.state,
        confirmed=service.state,
        confirmed_until=row.expires_on,
        resource_id=service.resource_id,
        suspended_at=view.suspended_at,
        taken_over_at=now,
        payment_method_id=method_id,
        agreed_version=agreed,
        next_step=step.next_step,
        next_step_at=step.next_step_at,
        next_subject=step.next_subject,
    )
