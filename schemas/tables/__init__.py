"""The database, as SQLAlchemy tables: one module per area, one metadata for all."""

from schemas.tables.base import ROLES, metadata, rows_from_json
from schemas.tables.billing import (
    charges,
    credit_note_lines,
    credit_notes,
    invoice_lines,
    invoice_series,
    invoices,
    payment_requests,
    refunds,
    request_lines,
)
from schemas.tables.bulk_operations import bulk_operations, bulk_tasks
from schemas.tables.catalogue import (
    catalogue_version,
    contracts,
    plans,
    policies,
    prices,
    recomputations,
    rollouts,
    subsidiaries,
    subsidiary_changes,
)
from schemas.tables.customers import agreements, customers, payment_methods
from schemas.tables.far_sides import far_sides
from schemas.tables.fleet import destructions, forecasts, heartbeat, virtual_clock, witnesses
from schemas.tables.history import events, sealing, seals
from schemas.tables.ledger import (
    batches,
    enqueuers,
    lane_breakers,
    lane_limits,
    lane_pauses,
    routes,
    sleeping_relays,
    tasks,
)
from schemas.tables.orders import order_lines, orders, rejected_documents
from schemas.tables.reminders import emails, link_emails, notices, order_emails
from schemas.tables.services import operations, reconciliations, renewals, services

__all__ = [
    "ROLES", "agreements", "batches", "bulk_operations", "bulk_tasks", "catalogue_version",
    "charges", "contracts", "credit_note_lines", "credit_notes", "customers", "destructions",
    "emails", "enqueuers", "events", "far_sides", "forecasts", "heartbeat", "invoice_lines",
    "invoice_series", "invoices", "lane_breakers", "lane_limits", "lane_pauses", "link_emails",
    "metadata", "notices", "operations", "order_emails", "order_lines", "orders",
    "payment_methods", "payment_requests", "plans", "policies", "prices", "recomputations",
    "reconciliations", "refunds", "rejected_documents", "renewals", "request_lines", "rollouts",
    "routes", "rows_from_json", "sealing", "seals", "services", "sleeping_relays",
    "subsidiaries", "subsidiary_changes", "tasks", "virtual_clock", "witnesses",
]  # fmt: skip
