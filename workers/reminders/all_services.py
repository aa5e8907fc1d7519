"""The link to all services of a customer."""

from collections.abc import Callable
from datetime import datetime

from producers.intake.links import Links

AllServices = Callable[[str, datetime], str]
"""Customer, and when the e-mail was begun -> an absolute URL."""


def all_services(links: Links, account_url: str | None) -> AllServices:
    """Our own page, by a link that is signed for its customer; or a page of upstream's.

    Args:
        account_url: the same for everybody, where customers sign in; None: our own.
    """
    if account_url is not None:
        return lambda _customer, _at: account_url
    return links.account_url
