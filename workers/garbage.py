"""When a worker process looks for cyclic garbage."""

import gc

# New objects between two looks. By default it is 700 or 2,000, by version: a batch of 500 makes
# tens of thousands that live until its end, and are looked through again and again for nothing.
ALLOCATIONS = 100_000


def collect_seldom() -> None:
    """Leave what is loaded by now alone, and look for garbage once in many batches.

    Without it a third of a handler's time in Python was the garbage collector's (80 of 240 us an
    order). Call it when everything is imported.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 20, 20)
