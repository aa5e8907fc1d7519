"""Corruptions of customers, agreements and the catalogue."""

CUSTOMERS = (
    (
        "a customer agreed to a version that there is not",
        "UPDATE agreements SET version = 9",
        "customers.agreed",
    ),
    (
        "a customer agreed to another contract",
        "UPDATE agreements SET contract = 'other'",
        "customers.agreed",
    ),
    (
        "a contract goes back to an earlier version",
        "UPDATE contracts SET version = 1",
        "customers.agreed",
    ),
    (
        "a customer buys from nobody",
        "UPDATE customers SET subsidiary = 'XX' WHERE id = 'nils'",
        "customers.facts",
    ),
    (
        "a customer cannot be written to",
        "UPDATE customers SET email = '' WHERE id = 'nils'",
        "customers.facts",
    ),
    ("a customer is deleted", "DELETE FROM customers WHERE id = 'nils'", "customers.orders"),
    (
        "a customer lives elsewhere",
        "UPDATE customers SET country = 'DE' WHERE id = 'kurt'",
        "customers.home",
    ),
    (
        "a customer is a business",
        "UPDATE customers SET vat_number = 'FR83404833048' WHERE id = 'kurt'",
        "customers.home",
    ),
    (
        "a price is in another currency",
        "UPDATE prices SET currency = 'PLN' WHERE subsidiary = 'FR'",
        "catalogue.currency",
    ),
    (
        "a subsidiary has another currency",
        "UPDATE subsidiaries SET definition = definition ||"
        """ '{"currency": "CHF"}' WHERE code = 'FR'""",
        "catalogue.currency",
    ),
    (
        "a subsidiary is in another country",
        "UPDATE subsidiaries SET definition = definition ||"
        """ '{"country": "US"}' WHERE code = 'FR'""",
        "requests.rate",
    ),
    (
        "a subsidiary lives by another clock",
        "UPDATE subsidiaries SET definition = definition ||"
        """ '{"timezone": "Asia/Tokyo"}' WHERE code = 'FR'""",
        "periods.expiry",
    ),
    (
        "a subsidiary was never changed",
        "UPDATE subsidiaries SET changed_at = NULL",
        "catalogue.changes",
    ),
    (
        "a subsidiary was changed on another day",
        "UPDATE subsidiaries SET changed_at = changed_at - interval '3 days'",
        "catalogue.changes",
    ),
    (
        "a change that was applied is planned again",
        "UPDATE subsidiary_changes SET applied_at = NULL",
        "catalogue.changes",
    ),
    (
        "a subsidiary goes back to its former currency",
        "UPDATE subsidiaries SET definition ="
        """ definition || '{"currency": "EUR"}' WHERE code = 'IE'""",
        "catalogue.changes",
    ),
    ("changes of subsidiaries are deleted", "DELETE FROM subsidiary_changes", "catalogue.changes"),
    ("the catalogue has no version", "DELETE FROM catalogue_version", "catalogue.version"),
    ("a plan's definition cannot be read", "UPDATE plans SET definition = '{}'", "steps.next"),
    (
        "a contract's text is of another version",
        "UPDATE contracts SET definition = definition ||"
        """ '{"version": 7}'""",
        "catalogue.references",
    ),
    ("a plan's policy is deleted", "DELETE FROM policies", "catalogue.references"),
    (
        "a policy's days are others",
        "UPDATE policies SET definition = definition ||"
        """ '{"terminate": 300}'""",
        "steps.next",
    ),
)
