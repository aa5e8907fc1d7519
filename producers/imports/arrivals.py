"""What an import writes: one type of row for each table."""

import uuid
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from schemas.rules.lifecycle import Step
from schemas.tables import agreements, customers, payment_methods, services
from schemas.tables.copy import Copied
from schemas.values import ServiceId


@dataclass(slots=True)
class CustomerRow:
    id: str
    subsidiary: str
    country: str
    language: str
    email: str
    vat_number: str | None
    name: str | None
    company: str | None
    address: dict[str, Any] | None
    payment_method_id: uuid.UUID | None
    realm: str


@dataclass(slots=True)
class MethodRow:
    id: uuid.UUID
    customer_id: str
    token: str
    expires_on: date | None
    gateway: str


@dataclass(slots=True)
class AgreementRow:
    customer_id: str
    contract: str
    version: int


@dataclass(slots=True)
class ServiceRow:
    """A service that was delivered elsewhere, with its next step."""

    id: ServiceId
    customer_id: str
    subsidiary: str
    plan: str
    universe: str
    brand: str
    driver: str
    configuration: dict[str, str]
    period_months: int
    mode: str
    state: str
    anchor: date
    paid_periods: int
    imported_periods: int
    expires_at: datetime
    desired: str
    confirmed: str
    confirmed_until: date
    resource_id: str
    suspended_at: datetime | None
    taken_over_at: datetime
    payment_method_id: uuid.UUID | None
    agreed_version: int | None
    next_step: Step | None
    next_step_at: datetime | None
    next_subject: uuid.UUID | None


copy_customers = Copied(CustomerRow, customers)
copy_methods = Copied(MethodRow, payment_methods)
copy_agreements = Copied(AgreementRow, agreements)
copy_services = Copied(ServiceRow, services)


@dataclass(slots=True)
class Arrivals:
    """Rows that are to be written."""

    customers: list[CustomerRow] = field(default_factory=list)
    methods: list[MethodRow] = field(default_factory=list)
    agreements: list[AgreementRow] = field(default_factory=list)
    services: list[ServiceRow] = field(default_factory=list)
