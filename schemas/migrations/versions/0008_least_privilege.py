"""A payment method pays for its own customer only, and roles have the rights that they use."""

import re
from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Table -> its column of the customer, and when the key is checked. Orders and customers are written
# before the method that they name.
PAID_WITH = {
    "customers": ("id", "DEFERRABLE INITIALLY DEFERRED"),
    "orders": ("customer_id", "DEFERRABLE INITIALLY DEFERRED"),
    "services": ("customer_id", ""),
    "payment_requests": ("customer_id", ""),
}

# All that each role may do from here on: S select, I insert, U update, D delete, of these columns.
CATALOGUE = {
    "catalogue_version": "S",
    "contracts": "S",
    "plans": "S",
    "policies": "S",
    "prices": "S",
    "rollouts": "S",
    "subsidiaries": "S",
    "virtual_clock": "S",
}
# What whoever decides about a service's next step has to see.
FACTS = (
    "id, order_id, customer_id, subsidiary, plan, brand, universe, driver, configuration,"
    " resource_id, period_months, anchor, paid_periods, expires_at, state, desired, mode,"
    " mode_changed_at, suspended_at, taken_over_at, agreed_version, payment_method_id, generation,"
    " next_subject"
)
NEXT = "next_step, next_step_at, next_subject"
STORY = {
    "emails": "S(id, sent_at, refused_at)",
    "notices": "S",
    "renewals": "S(service_id, period_number, net, currency, announced, announced_at, raised_at,"
    " stands_until, dearer, dearer_at, request_id, requests, asked_at, declines, declined_at,"
    " last_declined_at)",
}
# When it happened is the database's to say.
TELLS = {"events": "I(subject, name, task, waited, attempt, detail)"}
# In whose lanes work may begin.
CLAIMS = {"lane_pauses": "S(lane)", "heartbeat": "S(trusted_until)"}
PAUSES = {"lane_pauses": "S(lane, reason) I(lane, reason) U(reason)", "heartbeat": "S I U"}
# A worker's part of the ledger, of its own queues; what follows is asked for by enqueue_tasks.
WORKS = {
    "tasks": "S(name, subject, wanted, state, run_at, attempts, starts, reason, error)"
    " U(batched, run_at, state, attempts, starts, reason, error) D",
    "batches": "S(id, queue, name, lane, subjects, state)"
    " U(id, state, dispatches, until, subjects, size) D",
}
# Who calls the outside world hands back what there is no room for.
CALLS = {"batches": WORKS["batches"].replace("state)", "state, run_at)", 1)}
QUEUES = {
    "orders": "('orders')",
    "billing": "('billing')",
    "reminders": "('reminders')",
    "provisioning": "('web', 'dedicated', 'cloud', 'telecom')",
}
# Role -> the steps that it asks for, and their queues.
ENQUEUES = {
    "api": {"price": ["orders"]},
    "orders": {"charge": ["billing"]},
    "billing": {
        "charge": ["billing"],
        "refund": ["billing"],
        "converge": ["web", "dedicated", "cloud", "telecom"],
    },
    "provisioning": {"refund": ["billing"]},
    "scheduler": {
        "request": ["billing"],
        "withdraw": ["billing"],
        "charge": ["billing"],
        "suspend": ["billing"],
        "terminate": ["billing"],
        "remind": ["reminders"],
    },
}
# A policy lets a role see and touch some rows: which ones, and what they may become.
POLICIES = (
    ("tasks", "api", "SELECT", "USING (true)"),
    # A person has a failed task tried again, or gives it up.
    ("tasks", "api", "UPDATE", "USING (state = 'failed')"
     " WITH CHECK (state = 'ready' AND NOT batched)"),
    ("tasks", "api", "DELETE", "USING (state = 'failed' AND name = 'price')"),
    ("tasks", "relay", "SELECT", "USING (true)"),
    # Whose process died so often is set aside by its rescue.
    ("tasks", "relay", "UPDATE", "USING (state = 'ready') WITH CHECK (state = 'ready'"
     " OR (state = 'failed' AND reason = 'crashed' AND starts >= 5))"),
    ("tasks", "scheduler", "SELECT", "USING (true)"),
    ("tasks", "readonly", "SELECT", "USING (true)"),
    ("batches", "api", "SELECT", "USING (true)"),
    # What waits in a lane that is resumed is due at once.
    ("batches", "api", "UPDATE", "USING (state = 'dispatched') WITH CHECK (until <= now())"),
    ("batches", "relay", "ALL", "USING (true)"),
    ("batches", "readonly", "SELECT", "USING (true)"),
)  # fmt: skip
PERSON = "subsidiary, country, language, email, vat_number, payment_method_id"
REQUEST = (
    "id, order_id, payment_method_id, customer_id, subsidiary, country, vat_number, currency,"
    " tax_mention, net, tax, total"
)
LINE = "service_id, period_number, description, net, tax_rate, tax"
RIGHTS: dict[str, dict[str, str]] = {
    "api": CATALOGUE
    | STORY
    | TELLS
    | {
        "tasks": "S(name, subject, queue, lane, state, run_at, wanted, attempts, reason, error)"
        " U(state, batched, wanted, attempts, starts, run_at, reason, error) D",
        "batches": "S(lane, state) U(until)",
        "routes": "S",
        "agreements": "S(customer_id, contract, version) I(customer_id, contract, version)",
        "customers": f"S(id, {PERSON}) I(id, {PERSON}) U({PERSON}, updated_at)",
        # The token is written and never read.
        "payment_methods": "S(id, expires_on) I(id, customer_id, token, expires_on, gateway)"
        " U(expires_on)",
        "orders": "S(id, key, body_hash, state, problems)"
        " I(id, upstream, key, body_hash, state, problems, customer_id, subsidiary, country,"
        " vat_number, payment_method_id) U(state, reason, ended_at)",
        "order_lines": "I",
        "rejected_documents": "S(id, times) I(id, upstream, door, key, code, problems, body)"
        " U(times, received_at)",
        "services": f"S({FACTS}, mode_before)"
        " I(id, customer_id, subsidiary, plan, universe, brand, driver, configuration,"
        " period_months, mode, state, anchor, paid_periods, imported_periods, expires_at, desired,"
        " confirmed, confirmed_until, resource_id, suspended_at, taken_over_at, payment_method_id,"
        f" agreed_version, {NEXT})"
        " U(desired, generation, mode, mode_before, mode_changed_at, payment_method_id,"
        f" agreed_version, {NEXT})",
        "renewals": f"{STORY['renewals']}"
        " I(service_id, period_number, expires_on, net, currency, asked_at) U(asked_at)",
        "payment_requests": "S(id, order_id)",
        "lane_pauses": "S(lane, reason, paused_at) I(lane, reason) U(reason) D",
        "destructions": "D",
        "lock_import": "U",
    },
    "orders": CATALOGUE
    | TELLS
    | CLAIMS
    | WORKS
    | {
        "orders": "S(id, state, customer_id, subsidiary, country, vat_number, payment_method_id)"
        " U(state)",
        "order_lines": "S",
        "services": "I(id, order_id, line, unit, customer_id, subsidiary, plan, universe, brand,"
        " driver, configuration, period_months, payment_method_id)",
        "payment_requests": f"I({REQUEST})",
        "request_lines": f"I(request_id, number, {LINE})",
    },
    "billing": CATALOGUE
    | STORY
    | TELLS
    | CLAIMS
    | WORKS
    | CALLS
    | {
        "agreements": "S(customer_id, contract, version)",
        "customers": "S(id, country, vat_number)",
        "payment_methods": "S(id, token, expires_on, gateway)",
        "orders": "S(id, state, reason, payment_method_id) U(state, reason, ended_at)",
        "services": f"S({FACTS}, next_step, next_step_at)"
        " U(state, paid_periods, payment_method_id, agreed_version, desired, generation,"
        f" expires_at, {NEXT})",
        "payment_requests": f"S I({REQUEST}) U(state, closed_at, payment_method_id)",
        "request_lines": f"S I(request_id, number, {LINE}) U(released_at, refused_at)",
        "charges": "S I(key, request_id, attempt, amount, currency, payment_method_id, state)"
        " U(state, reference, reason, decided_at)",
        "invoice_series": "S I U(last_number, last_date)",
        "invoices": "S(id, request_id, subsidiary, currency) I",
        "invoice_lines": "S I",
        "credit_notes": "S(id, invoice_id, currency, total) I",
        "credit_note_lines": "S(invoice_id, invoice_line, tax) I",
        "refunds": "S I(key, credit_note_id, attempt, charge_key, amount, currency, state)"
        " U(state, reference, reason, decided_at)",
        "renewals": f"{STORY['renewals']}"
        " I(service_id, period_number, expires_on, net, currency, request_id, requests,"
        " stands_until)"
        " U(currency, request_id, requests, stands_until, asked_at, dearer, dearer_at, declines,"
        " declined_at, last_declined_at)",
        "recomputations": "S(id)",
    },
    "reminders": CATALOGUE
    | STORY
    | TELLS
    | CLAIMS
    | WORKS
    | CALLS
    | {
        "customers": "S(id, email, language, country, vat_number)",
        "payment_methods": "S(id, expires_on)",
        "services": f"S({FACTS}) U({NEXT})",
        "renewals": f"{STORY['renewals']} U(announced, announced_at, raised_at, currency)",
        "emails": "S(id, customer_id, begun_at, sent_at, refused_at)"
        " U(begun_at, sent_at, refused_at)",
    },
    "provisioning": CATALOGUE
    | STORY
    | TELLS
    | CLAIMS
    | WORKS
    | CALLS
    | {
        "orders": "S(id, state) U(state, ended_at)",
        "services": f"S({FACTS}, confirmed, confirmed_until, next_step, next_step_at)"
        " U(state, anchor, expires_at, generation, confirmed, confirmed_until, resource_id,"
        f" suspended_at, {NEXT})",
        "operations": "S I(key, service_id, kind, generation, paid_until, state)"
        " U(state, reason, ended_at)",
    },
    "relay": PAUSES
    | {
        "events": "I(subject, name, task, attempt, detail)",
        "virtual_clock": "S",
        "tasks": "S(name, subject, queue, lane, state, run_at, attempts, starts, reason, error,"
        " batched) U(batched, state, run_at, starts, reason)",
        "batches": "S I U(state, dispatches, until) D",
        "routes": "S",
        "sleeping_relays": "S I U D",
        "lock_dispatch": "U",
    },
    "scheduler": CATALOGUE
    | STORY
    | PAUSES
    | {
        "tasks": "S(name, subject)",
        "payment_methods": "S(id, expires_on)",
        "services": f"S({FACTS}, next_step, next_step_at) U({NEXT})",
        "renewals": "S I(service_id, period_number, expires_on, net, currency)",
        "notices": "S I",
        # Whoever holds a row needs the right to change something of it.
        "emails": "S(id, begun_at, sent_at, refused_at) I(id, customer_id, day) U(created_at)",
        "recomputations": "S U(after) D",
        "destructions": "S I U(services) D",
        "forecasts": "S(made_on) I",
        "lock_snapshot": "U",
        "lock_sweep": "U",
    },
}  # fmt: skip
LOCKS = ("lock_dispatch", "lock_import", "lock_snapshot", "lock_sweep")
VERBS = {"S": "SELECT", "I": "INSERT", "U": "UPDATE", "D": "DELETE"}


def upgrade() -> None:
    # Rather give up than have everybody wait behind whoever holds one of these tables for long.
    op.execute("SET LOCAL lock_timeout = '5s'")
    _own_methods_only()
    # Without columns or rows: whoever may write such a table may lock it.
    for lock in LOCKS:
        op.execute(f"CREATE TABLE {lock} ()")
    op.execute("""
        CREATE TABLE enqueuers (
            step TEXT NOT NULL,
            queue TEXT NOT NULL,
            role TEXT NOT NULL,
            CONSTRAINT enqueuers_pkey PRIMARY KEY (step, queue, role)
        )
    """)
    _grant()
    _ledger_by_queue()
    _delivered_once()


def _own_methods_only() -> None:
    """What is wrong already stays as it is and is told by the audit; nothing is added to it."""
    op.execute("""
        ALTER TABLE payment_methods
            ADD CONSTRAINT payment_methods_id_customer_id_key UNIQUE (id, customer_id)
    """)
    for table, (customer, when) in PAID_WITH.items():
        key = f"{table}_payment_method_id_{customer}_fkey"
        op.execute(f"""
            ALTER TABLE {table} ADD CONSTRAINT {key} FOREIGN KEY (payment_method_id, {customer})
                REFERENCES payment_methods (id, customer_id) {when} NOT VALID
        """)
        op.execute(f"""
            DO $$ BEGIN
                ALTER TABLE {table} VALIDATE CONSTRAINT {key};
            EXCEPTION WHEN foreign_key_violation THEN
                RAISE WARNING '{key} is not validated: see what "autorenew audit" says';
            END $$
        """)


def _grant() -> None:
    for role, tables in RIGHTS.items():
        op.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM autorenew_{role}")
        for table, rights in tables.items():
            granted = ", ".join(
                f"{VERBS[verb]} {columns}"
                for verb, columns in re.findall(r"(\w)(\(.*?\))?", rights)
            )
            op.execute(f"GRANT {granted} ON {table} TO autorenew_{role}")
    op.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO autorenew_readonly")
    op.execute(f"REVOKE SELECT ON payment_methods, {', '.join(LOCKS)} FROM autorenew_readonly")
    op.execute(
        "GRANT SELECT (id, customer_id, expires_on, gateway) ON payment_methods"
        " TO autorenew_readonly"
    )


def _ledger_by_queue() -> None:
    """A role touches the tasks of its own queues only, and asks for those that follow."""
    function = (Path(__file__).parent / "0008_enqueue.sql").read_text()
    op.get_bind().exec_driver_sql(function.replace("%", "%%"))
    op.execute("REVOKE ALL ON FUNCTION enqueue_tasks FROM PUBLIC")
    for role, steps in ENQUEUES.items():
        op.execute(f"GRANT EXECUTE ON FUNCTION enqueue_tasks TO autorenew_{role}")
        for step, queues in steps.items():
            for queue in queues:
                op.execute(
                    f"INSERT INTO enqueuers VALUES ('{step}', '{queue}', 'autorenew_{role}')"
                )
    own = (
        (table, role, "ALL", f"USING (queue IN {queues})")
        for table in ("tasks", "batches")
        for role, queues in QUEUES.items()
    )
    for table in ("tasks", "batches"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    for table, role, verb, rows in (*POLICIES, *own):
        name = f"{table}_{role}_{verb.lower()}"
        op.execute(f"CREATE POLICY {name} ON {table} FOR {verb} TO autorenew_{role} {rows}")


def _delivered_once() -> None:
    """Who delivers a service says from when on it lasts, once; how much longer is billing's."""
    op.execute("""
        CREATE FUNCTION refuse_other_expiry() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'service % was delivered: its expiry is not provisioning''s', OLD.id
                USING ERRCODE = 'insufficient_privilege';
        END $$
    """)
    op.execute("""
        CREATE TRIGGER services_delivered_once AFTER UPDATE OF anchor, expires_at ON services
        FOR EACH ROW WHEN (
            OLD.anchor IS NOT NULL
            AND (NEW.anchor, NEW.expires_at) IS DISTINCT FROM (OLD.anchor, OLD.expires_at)
            AND pg_has_role(current_user, 'autorenew_provisioning', 'USAGE')
            AND NOT pg_has_role(current_user, 'autorenew_billing', 'USAGE'))
        EXECUTE FUNCTION refuse_other_expiry()
    """)
