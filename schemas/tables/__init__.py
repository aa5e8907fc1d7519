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
from schemas.tables.catalogue import catalogue_version, contracts, plans, prices, subsidiaries
from schemas.tables.customers import agreements, customers, payment_methods
from schemas.tables.history import events
from schemas.tables.ledger import lane_pauses, routes, tasks
from schemas.tables.orders import order_lines, orders, rejected_documents
from schemas.tables.services import operations, services

__all__ = [
    "ROLES", "agreements", "catalogue_version", "charges", "contracts", "credit_note_lines",
    "credit_notes", "customers", "events", "invoice_lines", "invoice_series", "invoices",
    "lane_pauses", "metadata", "operations", "order_lines", "orders", "payment_methods",
    "payment_requests", "plans", "prices", "refunds", "rejected_documents", "request_lines",
    "routes", "rows_from_json", "services", "subsidiaries", "tasks",
]  # fmt: skip
