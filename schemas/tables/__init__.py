"""The database, as SQLAlchemy tables: one module per area, one metadata for all."""

from schemas.tables.api import api_answers, api_keys
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
from schemas.tables.console import (
    console_sessions,
    one_time_logins,
    operators,
    sign_in_failures,
)
from schemas.tables.customers import agreements, customers, payment_methods
from schemas.tables.far_sides import far_sides
from schemas.tables.fleet import (
    audit_findings,
    audit_runs,
    destructions,
    forecasts,
    heartbeat,
    processes,
    virtual_clock,
    witnesses,
)
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
from schemas.tables.outgoing import (
    event_cursor,
    event_replays,
    event_stretches,
    untold_events,
    webhook_deliveries,
    webhook_endpoints,
)
from schemas.tables.reminders import email_texts, emails, link_emails, notices, order_emails
from schemas.tables.services import operations, reconciliations, renewals, services

__all__ = [
    "ROLES", "agreements", "api_answers", "api_keys", "audit_findings", "audit_runs", "batches",
    "bulk_operations", "bulk_tasks", "catalogue_version", "charges", "console_sessions",
    "contracts", "credit_note_lines", "credit_notes", "customers", "destructions", "email_texts",
    "emails", "enqueuers", "event_cursor", "event_replays", "event_stretches", "events",
    "far_sides", "forecasts", "heartbeat", "invoice_lines", "invoice_series", "invoices",
    "lane_breakers", "lane_limits", "lane_pauses", "link_emails", "metadata", "notices",
    "one_time_logins", "operations", "operators", "order_emails", "order_lines", "orders",
    "payment_methods", "payment_requests", "plans", "policies", "prices", "processes",
    "recomputations", "reconciliations", "refunds", "rejected_documents", "renewals",
    "request_lines", "rollouts", "routes", "rows_from_json", "sealing", "seals", "services",
    "sign_in_failures", "sleeping_relays", "subsidiaries", "subsidiary_changes", "tasks",
    "untold_events", "virtual_clock", "webhook_deliveries", "webhook_endpoints", "witnesses",
]  # fmt: skip
