"""A process whose host's clock is wrong does no work, and stops nobody else.

No business time comes from that clock. But its certificates, log lines and metrics cannot be
trusted, and whoever set it wrong may have set more.
"""

from monitoring import metrics
from schemas.clock import Clock
from schemas.errors import AutorenewError
from schemas.settings import Settings


class WrongClock(AutorenewError):
    """This host's clock is too far from the database's."""

    code = "wrong_clock"


def check(clock: Clock, settings: Settings) -> None:
    """Check that this host's clock agrees with the fleet's.

    Raises:
        WrongClock: it does not; the message says by how much.
        SQLAlchemyError: the database was to be asked, and cannot be.
    """
    ahead = clock.ahead()
    metrics.clock_ahead.set(ahead)
    if abs(ahead) > settings.clock_skew_seconds:
        raise WrongClock(
            f"this host's clock is {_shown(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'}"
            " the database's: no work is done here until it is set"
        )


def _shown(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} s"
