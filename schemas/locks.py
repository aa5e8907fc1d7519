"""What only one process of the fleet does at a time.

A lock is a table without columns or rows: who may write it may lock it, and nobody else. Anybody
who may connect, such as a reader, could take an advisory lock for ever. The lock is kept in memory,
as that one is, and ends with its transaction. So does a holder that is frozen, or gone without the
server having noticed: its transaction is ended once it was silent for too long, see
:func:`most_silent`.
"""

from enum import StrEnum

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError


class Lock(StrEnum):
    """Names of tables; see the docstring of the module."""

    AUDIT = "lock_audit"
    DISPATCH = "lock_dispatch"
    IMPORT = "lock_import"
    SNAPSHOT = "lock_snapshot"
    SWEEP = "lock_sweep"


def most_silent(lock: Lock) -> str:
    """How long a holder may say nothing between two statements.

    A frozen relay stops all others of the fleet, so it is not waited for long. A machine that
    stalls for a few seconds loses no other work.
    """
    return "5s" if lock is Lock.DISPATCH else "30s"


_LIMIT = {
    lock: text(f"SET LOCAL idle_in_transaction_session_timeout = '{most_silent(lock)}'")
    for lock in Lock
}
# Nothing but another lock of its kind conflicts with it: reading, such as a backup's, does not.
_TAKE = {lock: text(f"LOCK TABLE {lock} IN EXCLUSIVE MODE") for lock in Lock}
_TRY = {lock: text(f"LOCK TABLE {lock} IN EXCLUSIVE MODE NOWAIT") for lock in Lock}


def take(tx: Connection, lock: Lock) -> None:
    """Hold a lock until the transaction ends, and wait for whoever holds it."""
    tx.execute(_LIMIT[lock])
    tx.execute(_TAKE[lock])


def try_to_take(tx: Connection, lock: Lock) -> bool:
    """The same, but do not wait; returns whether it is ours."""
    tx.execute(_LIMIT[lock])
    try:
        with tx.begin_nested():
            tx.execute(_TRY[lock])
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
            raise
        return False
    return True
