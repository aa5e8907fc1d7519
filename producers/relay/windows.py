"""How tasks are shared out among workers that make so many calls at once in a lane.

A message costs a claim, a commit of the attempts and one of the answers, which its tasks share. And
it is taken only when all of it has room beside the calls that are under way.
"""

MESSAGES_PER_WINDOW = 4
# Of a small window half is a message, up to so many tasks: four workers with 10 calls of 50 ms each
# made 640 calls/s with messages of 5, and 490 with messages of 2.
FEW = 5


def tasks_in_message(at_once: int) -> int:
    """Most tasks in one message.

    Args:
        at_once: calls that a process makes at once in a lane.
    """
    return max(1, at_once // MESSAGES_PER_WINDOW, min(at_once // 2, FEW))


def most_claimed(at_once: int) -> int:
    """Most tasks that are claimed in a lane at once, so that a call that ends has a successor
    while its answer is recorded: with calls of 0.3 s, recording and claiming take about a third of
    that; with short ones, as long as the calls themselves.

    Args:
        at_once: as for :func:`tasks_in_message`.
    """
    return at_once + max(at_once // 2, min(at_once, 2 * FEW))
