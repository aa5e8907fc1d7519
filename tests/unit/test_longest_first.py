"""Long tests begin first, on as many workers as there are."""

import re
from pathlib import Path

from tests.support.longest_first import CHAOS_SECONDS, FILES, TESTS, dealt, seconds_of

ROOT = Path(__file__).parents[1]


def test_every_test_is_run_once_and_the_long_ones_begin_each_stretch() -> None:
    short = [(f"short-{n}", "e2e/test_docs.py", "test_short") for n in range(91)]
    long = [(f"long-{n}", "chaos/test_faults.py", "test_any") for n in range(6)]

    order = dealt([*short[:50], *long, *short[50:]], 3)

    assert sorted(order) == sorted(test for test, _, _ in short + long)
    # pytest-xdist gives a worker as many of those that are left as each has to take.
    for stretch in (order[:32], order[32:64], order[64:]):
        assert [test.startswith("long") for test in stretch[:3]] == [True, True, False]


def test_tests_of_a_file_with_a_fleet_for_all_stay_together_in_their_order() -> None:
    together = [(f"of-{n}", "chaos/shared.py", "test_any") for n in range(10)]
    long = [(f"long-{n}", "chaos/test_faults.py", "test_any") for n in range(8)]

    order = dealt([*long, *together], 2, {"chaos/shared.py": 20.0})

    begin = order.index("of-0")
    assert order[begin : begin + 10] == [f"of-{n}" for n in range(10)]


def test_the_longest_begin_before_shorter_ones() -> None:
    name = max(TESTS, key=lambda name: TESTS[name])
    chaos = [(f"chaos-{n}", "chaos/test_faults.py", "test_any") for n in range(5)]

    assert dealt([*chaos, ("longest", "e2e/test_any.py", name)], 1)[0] == "longest"
    assert seconds_of("chaos/test_faults.py", "test_any") == CHAOS_SECONDS


def test_what_is_named_exists() -> None:
    assert [path for path in FILES if not (ROOT / path).exists()] == []
    files = [*ROOT.glob("chaos/test_*.py"), *ROOT.glob("e2e/test_*.py")]
    names = set(re.findall(r"^def (test_\w+)", "\n".join(f.read_text() for f in files), re.M))
    assert set(TESTS) - names == set()
