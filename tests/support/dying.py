"""Workers that kill themselves at failpoints, again and again.

A launcher waits longer after each death of its group, for up to five seconds, and what a dead
process held is free again when its lease is over. Of several groups one goes on meanwhile.
"""

from autorenew.local.fleet import Member, PrivateFleet

GROUPS = 3


def start_groups(
    fleet: PrivateFleet, *queues: str, name: str = "", groups: int = GROUPS, threads: int = 2,
    **extra: str,
) -> list[Member]:  # fmt: skip
    """Start several groups of workers of the same queues.

    Args:
        name: of the first one; the others have a number after it.
        threads: of each.
        extra: as of :meth:`PrivateFleet.start_worker`, such as ``failpoints``.
    """
    name = name or f"worker-{queues[0]}"
    names = [name, *(f"{name}-{number}" for number in range(2, groups + 1))]
    return [fleet.start_worker(*queues, name=one, threads=threads, **extra) for one in names]
