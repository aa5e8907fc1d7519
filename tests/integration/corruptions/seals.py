"""Corruptions that only the seals of documents and history tell, and those that nothing tells."""

# Nothing else in the books says otherwise.
SEALED = (
    (
        "an event that nothing follows from is deleted",
        "DELETE FROM events WHERE name = 'charge.unknown'",
        "seals.history",
    ),
    (
        "a task waited longer",
        "UPDATE events SET waited = waited + 1",
        "seals.history",
    ),
    (
        "the reason of a decline is another",
        """UPDATE events SET detail = detail || '{"reason": "x"}' WHERE name = 'charge.declined'""",
        "seals.history",
    ),
    (
        "an event is told of what never happened",
        """INSERT INTO events (subject, id, name) OVERRIDING SYSTEM VALUE
           SELECT subject, -1, 'charge.unknown' FROM events LIMIT 1""",
        "seals.history",
    ),
    (
        "a refused order is deleted, with its history",
        """DELETE FROM events WHERE subject = (SELECT id FROM orders WHERE key = 'wrong');
           DELETE FROM orders WHERE key = 'wrong'""",
        "seals.history",
    ),
    (
        "an order that was not paid yet is deleted, with its history",
        """DELETE FROM events WHERE subject = (SELECT id FROM orders WHERE key = 'sam');
           DELETE FROM order_lines WHERE order_id = (SELECT id FROM orders WHERE key = 'sam');
           DELETE FROM batches WHERE name = 'price'; DELETE FROM tasks WHERE name = 'price';
           DELETE FROM orders WHERE key = 'sam'""",
        "seals.history",
    ),
    ("a seal is deleted", "DELETE FROM seals WHERE number = 1", "seals.history"),
    (
        "seals say that there is less",
        "UPDATE sealing SET last_id = 0, number = 0, hash = chain_start('events')",
        "seals.history",
    ),
    (
        "an invoice, and its request with it, is for something else",
        """UPDATE request_lines SET description = 'Other, P12M' WHERE description = 'Site, P12M';
           UPDATE invoice_lines SET description = 'Other, P12M' WHERE description = 'Site, P12M'""",
        "seals.documents",
    ),
    ("an invoice has no hash", "UPDATE invoices SET hash = NULL", "seals.documents"),
    (
        "a series ends with another hash",
        "UPDATE invoice_series SET last_hash = chain_start(code)",
        "seals.documents",
    ),
    (
        "a credit note's reason is another one that there is",
        "UPDATE credit_notes SET reason = 'ended'",
        "seals.documents",
    ),
)

# What was done: how, and why nothing says otherwise. Only a seal over such rows could.
UNNOTICED = {
    "a customer's name": (
        "UPDATE customers SET name = 'Somebody else'",
        "it is kept once; the event of a change names the field, not the value",
    ),
    "a customer's e-mail address": (
        "UPDATE customers SET email = 'other@example.com'",
        "it is kept once; e-mails do not keep whom they went to",
    ),
    "whom an order is billed to": (
        """UPDATE orders SET billed_to = '{"name": "Somebody else"}'""",
        "it is kept once; of the order's document there is a hash alone",
    ),
    "a subsidiary's name": (
        """UPDATE subsidiaries SET definition = definition || '{"entity": "Somebody else"}'""",
        "the catalogue is what was loaded last; its files are not kept",
    ),
    "where a contract's text is": (
        """UPDATE contracts SET definition = definition || '{"url": "https://example.com/x"}'""",
        "the catalogue is what was loaded last",
    ),
    "what a plan costs from now on": (
        "UPDATE prices SET renewal = renewal + 1",
        "the catalogue is what was loaded last; what was ordered or fixed keeps its price",
    ),
    "the reference of a charge": (
        "UPDATE charges SET reference = 'other'",
        "it is the gateway's own word, and not in its book",
    ),
    "the configuration of an imported service": (
        """UPDATE services SET configuration = '{"x": "y"}' WHERE order_id IS NULL""",
        "the file that it came from is not kept",
    ),
    "a forecast that was made": (
        "UPDATE forecasts SET services = services + 1",
        "it says what was expected then, and not what there is",
    ),
    "how many ends the guard has counted": (
        "DELETE FROM destructions",
        "what was enqueued and not done leaves no other trace",
    ),
    "documents that were rejected": (
        "DELETE FROM rejected_documents",
        "nothing follows from them",
    ),
}
