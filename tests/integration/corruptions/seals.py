"""Corruptions that nothing in the books contradicts."""

# Nothing in the books says otherwise, so that only a seal could tell: a chain of hashes over
# documents and events, or one over the rows of the catalogue.
ONLY_SEALS = {
    "a customer's name or address": "UPDATE customers SET name = 'Somebody else'",
    "whom an order is billed to": 'UPDATE orders SET billed_to = \'{"name": "Somebody else"}\'',
    "a customer's e-mail address": "UPDATE customers SET email = 'other@example.com'",
    "the hash of an order's document": "UPDATE orders SET body_hash = sha256('x')",
    "a subsidiary's name, or its country where it has the same tax": """
        UPDATE subsidiaries SET definition = definition || '{"entity": "Somebody else"}"""
    "'",
    "which release a contract's text is": "UPDATE contracts SET definition = definition ||"
    """ '{"url": "https://example.com/other"}'""",
    "the reference of a charge": "UPDATE charges SET reference = 'other'",
    "the configuration of an imported service": 'UPDATE services SET configuration = \'{"x": "y"}\' WHERE order_id IS NULL',
    "what was forecast": "UPDATE forecasts SET services = services + 1",
    "what the guard has counted": "DELETE FROM destructions",
    "a pause of a lane": "DELETE FROM lane_pauses",
    "which documents were rejected": "DELETE FROM rejected_documents",
    "how long a task waited": "UPDATE events SET waited = waited + 1",
    "an event that nothing follows from": "DELETE FROM events WHERE name = 'charge.unknown'",
    "what a plan costs": "UPDATE prices SET renewal = renewal + 1",
    "a refused order, with its history": """
        DELETE FROM events WHERE subject = (SELECT id FROM orders WHERE key = 'wrong');
        DELETE FROM orders WHERE key = 'wrong'""",
}
