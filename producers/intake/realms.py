"""Whose customers are whose: an upstream sees and touches those of its own realm only.

A realm is a group of upstreams. One that the settings do not name is a realm of its own. A customer
belongs to the realm of the upstream that created them.
"""

from collections.abc import Mapping

from schemas.messages import Problem

# Commands given on the command line, and links that a customer clicked: they name any customer.
OPERATORS = "cli"
CUSTOMERS = "pages"


class Realms:
    """
    Args:
        of_upstreams: upstream -> realm, of those that share one.
    """

    def __init__(self, of_upstreams: Mapping[str, str] | None = None) -> None:
        self._of_upstreams = dict(of_upstreams or {})

    def of(self, upstream: str, door: str) -> str | None:
        """The realm that a document speaks for; None: an operator's, which may touch all, or that
        of a link, which we have signed for its own customer."""
        return (
            None if door in (OPERATORS, CUSTOMERS) else self._of_upstreams.get(upstream, upstream)
        )

    def upstreams_of(self, realm: str) -> tuple[str, ...]:
        """The upstreams that are known to be of a realm; one of its name is its own."""
        named = [upstream for upstream, of in self._of_upstreams.items() if of == realm]
        own = [realm] if self._of_upstreams.get(realm, realm) == realm else []
        return tuple(sorted({*named, *own}))


def may_touch(realm: str | None, customers_realm: str | None) -> bool:
    """Whether a realm may use a customer; one without a realm is from before there were any."""
    return realm is None or customers_realm is None or realm == customers_realm


def not_yours(path: str) -> Problem:
    message = "this customer belongs to another upstream"
    return Problem(code="customer_not_yours", path=path, message=message)
