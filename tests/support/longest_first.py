"""The order of tests that take long: the longest first, dealt out to the workers of pytest-xdist.

Worksteal hands each worker a stretch of the tests as they were collected, and lets whoever is idle
take from the end of another's. Long tests stand at the beginning of each stretch, so that nobody is
left alone with one at the end.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item")

# About how many seconds they take beside others. Of a file that begins with a fleet for all of its
# tests; they stay together.
FILES = {
    "chaos/test_database_limits.py": 80,
    "chaos/test_outages.py": 110,
    "e2e/test_watch.py": 90,
}
# The others of a file in tests/chaos or in tests/e2e.
TESTS = {
    "test_demo_reports_and_ends_with_0": 50,
    "test_the_fleet_in_containers_delivers_scales_loses_one_and_drains": 120,
    "test_nothing_is_lost_wherever_a_publisher_is_killed": 45,
    "test_nothing_is_lost_when_all_is_killed_and_the_broker_restarts": 45,
    "test_a_subject_that_kills_its_process_fails_alone": 40,
    "test_worker_that_is_killed_between_call_and_record_leaves_one_zone_for_each_service": 40,
    "test_worker_that_is_killed_between_a_call_and_its_record_makes_no_second_resource": 40,
    "test_every_failpoint_is_visited_and_nothing_is_lost": 50,
    "test_every_failpoint_of_a_renewal_is_visited_and_each_service_renews_once": 50,
    "test_configuration_that_crashes_its_handler_or_its_process_fails_alone": 40,
    "test_the_composed_fleet_delivers_renews_and_drains": 40,
    "test_what_happens_in_the_demo_does_not_depend_on_the_hour": 35,
    "test_fleet_of_make_up_can_be_used_from_another_terminal_and_stops_cleanly": 30,
    "test_worker_that_is_killed_leaves_one_machine_for_each_service": 25,
}
CHAOS_SECONDS = 15.0
OTHERS_SECONDS = 0.1


def seconds_of(path: str, test: str) -> float:
    """
    Args:
        path: of its file, below ``tests``.
        test: the name of its function.
    """
    if path.startswith("chaos/"):
        return TESTS.get(test, CHAOS_SECONDS)
    return TESTS.get(test, OTHERS_SECONDS)


def dealt(
    tests: Iterable[tuple[Item, str, str]],
    workers: int,
    files: Mapping[str, float] = FILES,
) -> list[Item]:
    """Every test once, in a stretch of about equal length for each worker.

    Args:
        tests: each with the path of its file below ``tests``, and its function's name.
        files: that stay together, and how long they take.
    """
    groups: dict[object, tuple[float, list[Item]]] = {}
    short: list[Item] = []
    for number, (test, path, name) in enumerate(tests):
        seconds = seconds_of(path, name)
        if path in files:
            groups.setdefault(path, (files[path], []))[1].append(test)
        elif seconds < 1:
            short.append(test)
        else:
            groups[number] = (seconds, [test])
    piles: list[list[Item]] = [[] for _ in range(workers)]
    load = [0.0] * workers
    for seconds, together in sorted(groups.values(), key=lambda group: -group[0]):
        least = load.index(min(load))
        piles[least] += together
        load[least] += seconds
    return [test for pile in filled(piles, short) for test in pile]


def filled(piles: Sequence[list[Item]], short: Sequence[Item]) -> Sequence[list[Item]]:
    """As many short ones behind each pile as make all of them equally long."""
    left = list(short)
    total = len(left) + sum(map(len, piles))
    for number, pile in enumerate(piles):
        wanted = total // (len(piles) - number)
        total -= wanted
        take = max(0, wanted - len(pile))
        pile += left[:take]
        del left[:take]
    piles[-1].extend(left)
    return piles
