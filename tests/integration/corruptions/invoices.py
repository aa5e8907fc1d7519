"""Corruptions of invoices, credit notes and their numbers."""

from tests.integration.corruptions.subjects import (
    first_request,
    invoice,
    note,
    service,
    swapped,
)

INVOICES = (
    (
        "an invoice is of another amount",
        f"UPDATE invoices SET total = total + 1 WHERE id = {invoice('nils')}",
        "invoices.paid",
    ),
    (
        "an invoice is in another currency",
        f"UPDATE invoices SET currency = 'PLN' WHERE id = {invoice('nils')}",
        "invoices.paid",
    ),
    (
        "an invoice is deleted",
        f"DELETE FROM invoices WHERE id = {invoice('nils')}",
        "invoices.paid",
    ),
    (
        "an invoice is for a request that is not there",
        f"UPDATE invoices SET request_id = gen_random_uuid() WHERE id = {invoice('nils')}",
        "invoices.paid",
    ),
    (
        "an invoice is in another customer's name",
        f"UPDATE invoices SET customer_id = 'bob' WHERE id = {invoice('nils')}",
        "invoices.party",
    ),
    (
        "an invoice is of another subsidiary",
        f"UPDATE invoices SET subsidiary = 'IE' WHERE id = {invoice('nils')}",
        "invoices.party",
    ),
    (
        "an invoice is to another country",
        f"UPDATE invoices SET country = 'DE' WHERE id = {invoice('nils')}",
        "invoices.party",
    ),
    (
        "an invoice has another VAT number",
        f"UPDATE invoices SET vat_number = NULL WHERE id = {invoice('dora')}",
        "invoices.party",
    ),
    (
        "an invoice says something else of its tax",
        f"UPDATE invoices SET tax_mention = 'VAT DE' WHERE id = {invoice('nils')}",
        "invoices.party",
    ),
    (
        "a tax rate on an invoice's line",
        f"UPDATE invoice_lines SET tax_rate = 19.99 WHERE invoice_id = {invoice('nils')}",
        "invoices.lines",
    ),
    (
        "a cent of tax moves between an invoice's lines",
        "UPDATE invoice_lines SET tax = tax"
        " + CASE number WHEN 1 THEN 1 WHEN 2 THEN -1 ELSE 0 END"
        f" WHERE invoice_id = {invoice('piotr')}",
        "invoices.lines",
    ),
    (
        "an invoice's line says something else",
        f"UPDATE invoice_lines SET description = 'Consulting' WHERE invoice_id = {invoice('nils')}",
        "invoices.lines",
    ),
    (
        "an invoice's line is of another period",
        f"UPDATE invoice_lines SET period_number = 8 WHERE invoice_id = {invoice('ivan')}",
        "invoices.lines",
    ),
    (
        "an invoice has a line more",
        "INSERT INTO invoice_lines SELECT invoice_id, 99, service_id, 99, description, 0,"
        f" tax_rate, 0 FROM invoice_lines WHERE invoice_id = {invoice('ivan')}",
        "invoices.lines",
    ),
    (
        "an invoice's line is deleted",
        f"DELETE FROM invoice_lines WHERE invoice_id = {invoice('ivan')}",
        "invoices.lines",
    ),
    (
        "an invoice's lines cost less",
        f"UPDATE invoice_lines SET net = net - 1 WHERE invoice_id = {invoice('ivan')}",
        "invoices.sum",
    ),
    (
        "an invoice's net and total are another",
        f"UPDATE invoices SET net = net - 1, total = total - 1 WHERE id = {invoice('ivan')}",
        "invoices.sum",
    ),
    (
        "an invoice's tax is not that of its rate",
        f"UPDATE invoice_lines SET tax = tax + 1 WHERE invoice_id = {invoice('ivan')}",
        "invoices.tax",
    ),
    (
        "lines of two invoices are swapped",
        swapped("invoice_lines", "nils", "ivan"),
        "invoices.services",
    ),
    (
        "a whole invoice and its request go to somebody else",
        f"UPDATE payment_requests SET customer_id = 'bob' WHERE id = {first_request('ivan')};"
        f" UPDATE invoices SET customer_id = 'bob' WHERE id = {invoice('ivan')}",
        "invoices.services",
    ),
    ("a credit note's lines are deleted", "DELETE FROM credit_note_lines", "credits.cancelled"),
    (
        "a delivered service was cancelled",
        f"UPDATE services SET state = 'cancelled' WHERE id = {service('nils')}",
        "credits.cancelled",
    ),
    (
        "what was refused is not given back",
        f"DELETE FROM credit_note_lines WHERE credit_note_id = {note('ended')}",
        "credits.refused",
    ),
    (
        "a paid line was refused",
        f"UPDATE request_lines SET refused_at = now() WHERE request_id = {first_request('nils')}",
        "credits.refused",
    ),
    (
        "a credit note is for what was delivered",
        "UPDATE services SET state = 'active' WHERE customer_id = 'mary'",
        "credits.due",
    ),
    (
        "what is given back was not refused",
        "UPDATE request_lines SET refused_at = NULL",
        "credits.due",
    ),
    (
        "a credit note has another reason",
        "UPDATE credit_notes SET reason = 'goodwill'",
        "credits.due",
    ),
    ("a credit note gives more", "UPDATE credit_notes SET total = total + 1", "credits.sum"),
    (
        "a credit note's line gives less",
        "UPDATE credit_note_lines SET net = net - 1",
        "credits.sum",
    ),
    (
        "a credit note's line is of another rate",
        "UPDATE credit_note_lines SET tax_rate = 5",
        "credits.sum",
    ),
    (
        "a credit note is in another currency",
        "UPDATE credit_notes SET currency = 'PLN'",
        "credits.sum",
    ),
    (
        "a credit note is of another invoice",
        f"UPDATE credit_notes SET invoice_id = {invoice('nils')}",
        "credits.sum",
    ),
    (
        "a credit note's line is of another service",
        f"UPDATE credit_note_lines SET service_id = {service('nils')}",
        "credits.sum",
    ),
    (
        "a credit note, with its lines, gives back more tax",
        "UPDATE credit_note_lines SET tax = tax + 1;"
        " UPDATE credit_notes SET tax = tax + 1, total = total + 1",
        "credits.tax",
    ),
    (
        "a credit note, with its lines, gives back no tax",
        "UPDATE credit_note_lines SET tax = 0; UPDATE credit_notes SET tax = 0, total = net",
        "credits.tax",
    ),
    (
        "a number is left out",
        f"UPDATE invoices SET number = 999 WHERE id = {invoice('nils')}",
        "numbers.gapless",
    ),
    (
        "a credit note's number is left out",
        "UPDATE credit_notes SET number = number + 100",
        "numbers.gapless",
    ),
    (
        "a date goes back",
        "UPDATE invoices SET issued_on = issued_on - 40 WHERE number = 5",
        "numbers.gapless",
    ),
    ("a counter is ahead", "UPDATE invoice_series SET last_number = 99", "numbers.counter"),
    (
        "a counter is behind",
        "UPDATE invoice_series SET last_number = last_number - 1",
        "numbers.counter",
    ),
    (
        "a counter is of 2099",
        "UPDATE invoice_series SET last_date = '2099-12-31'",
        "numbers.counter",
    ),
    ("a counter is deleted", "DELETE FROM invoice_series", "numbers.counter"),
    (
        "a series without documents",
        "INSERT INTO invoice_series VALUES ('FR-2099', 0, '2099-01-01')",
        "numbers.counter",
    ),
    (
        "the last invoice is deleted, its counter turned back",
        """
        DELETE FROM invoice_lines WHERE invoice_id = (SELECT id FROM invoices
            WHERE series LIKE 'FR-%' ORDER BY series DESC, number DESC LIMIT 1);
        UPDATE invoice_series AS s SET last_number = last_number - 1
        WHERE code = (SELECT series FROM invoices WHERE series LIKE 'FR-%'
            ORDER BY series DESC, number DESC LIMIT 1);
        DELETE FROM invoices WHERE id = (SELECT id FROM invoices
            WHERE series LIKE 'FR-%' ORDER BY series DESC, number DESC LIMIT 1)""",
        "history.invoices",
    ),
    (
        "an invoice is in another series",
        f"UPDATE invoices SET series = 'IE-2026', number = 500 WHERE id = {invoice('nils')}",
        "numbers.series",
    ),
    (
        "a credit note is in the series of invoices",
        "UPDATE credit_notes SET series = replace(series, '-C', ''), number = 900 + number",
        "numbers.series",
    ),
    (
        "an invoice is dated next year",
        f"UPDATE invoices SET issued_on = issued_on + 366 WHERE id = {invoice('nils')}",
        "numbers.dates",
    ),
    (
        "an invoice is dated before its payment",
        f"UPDATE invoices SET issued_on = issued_on - 20 WHERE id = {invoice('nils')}",
        "numbers.gapless",
    ),
    (
        "a credit note is dated before its invoice",
        "UPDATE credit_notes SET issued_on = issued_on - 90",
        "numbers.dates",
    ),
    (
        "two invoices change their numbers",
        f"""
        UPDATE invoices SET number = number + 1000 WHERE id IN ({invoice("nils")},
            {invoice("ivan")});
        UPDATE invoices AS i SET number = o.number - 1000 FROM invoices AS o
        WHERE i.id IN ({invoice("nils")}, {invoice("ivan")})
          AND o.id IN ({invoice("nils")}, {invoice("ivan")}) AND o.id <> i.id""",
        "history.invoices",
    ),
)
