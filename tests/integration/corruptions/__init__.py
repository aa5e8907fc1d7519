"""What somebody with all rights may do to the books, and which check has to notice it.

Triggers and foreign keys are off while one is made.
"""

from tests.integration.corruptions.customers import CUSTOMERS
from tests.integration.corruptions.deliveries import DELIVERIES
from tests.integration.corruptions.history import HISTORY, TIMES
from tests.integration.corruptions.invoices import INVOICES
from tests.integration.corruptions.ledger import LEDGER, MAILS
from tests.integration.corruptions.money import MONEY
from tests.integration.corruptions.orders import ORDERS, REQUESTS
from tests.integration.corruptions.outgoing import OUTGOING
from tests.integration.corruptions.renewals import RENEWALS, STEPS
from tests.integration.corruptions.seals import SEALED, UNNOTICED
from tests.integration.corruptions.services import SERVICES
from tests.integration.corruptions.subjects import Corruption

__all__ = ["CORRUPTIONS", "UNNOTICED", "Corruption"]

CORRUPTIONS = [
    Corruption(*row)
    for table in (
        ORDERS, REQUESTS, MONEY, INVOICES, SERVICES, RENEWALS, STEPS, LEDGER, MAILS,
        DELIVERIES, CUSTOMERS, HISTORY, TIMES, SEALED, OUTGOING,
    )
    for row in table
]  # fmt: skip
