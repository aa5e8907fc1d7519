"""Payment requests of renewals, for the modules that charge; see ``draft`` and ``store``."""

from workers.billing.payment_requests.draft import Customer, Draft, Line, draft
from workers.billing.payment_requests.store import customers, lock, periods_on, take_off, write

__all__ = ["Customer", "Draft", "Line", "customers", "draft", "lock", "periods_on", "take_off",
           "write"]  # fmt: skip
