"""What may be seen: orders, services, customers, documents of money, the catalogue; for every door.

A view reads with a few statements, each answered by an index and bounded, over a connection that
may be read-only (the role ``readonly``, perhaps on a standby). It takes a scope
(:class:`~producers.views.scope.Scope`): what lies outside it does not exist for who asks. No view
ever holds the token of a payment method.
"""

from producers.views.scope import EVERYTHING, Scope

__all__ = ["EVERYTHING", "Scope"]
