"""What keys may ask for in a second, of several processes together."""

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from producers.api.buckets import PLACES, Buckets

KEY = uuid.UUID(int=7)


class Seconds:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_bucket_fills_again_with_its_rate() -> None:
    seconds = Seconds()
    buckets = Buckets(monotonic=seconds)
    assert [buckets.take(KEY, 2) for _ in range(2)] == [0, 0]
    assert buckets.take(KEY, 2) == pytest.approx(0.5)
    seconds.now += 0.5
    assert buckets.take(KEY, 2) == 0
    assert buckets.take(KEY, 2) > 0
    seconds.now += 60
    assert [buckets.take(KEY, 2) for _ in range(2)] == [0, 0]
    assert buckets.take(KEY, 2) > 0


def test_batch_is_taken_whole_and_waited_for() -> None:
    seconds = Seconds()
    buckets = Buckets(monotonic=seconds)
    assert buckets.take(KEY, 10, 50) == 0
    assert buckets.take(KEY, 10) == pytest.approx(4.1)
    assert buckets.take(KEY, 20) == 0, "another rate fills it"


def test_processes_share_what_is_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "buckets"
    Buckets.make(file)
    program = f"""
import uuid
from pathlib import Path
from producers.api.buckets import Buckets
buckets = Buckets(Path({str(file)!r}), monotonic=lambda: 1000.0)
print(sum(not buckets.take(uuid.UUID(int=7), 2000) for _ in range(1000)))
"""
    running = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    taken = [int(one.communicate(timeout=60)[0]) for one in running]
    assert sum(taken) == 2000, "none is lost, and none is given twice"


def test_keys_of_one_place_do_not_share_and_the_fullest_goes() -> None:
    seconds = Seconds()
    buckets = Buckets(monotonic=seconds)
    keys = [uuid.UUID(int=7 + n * PLACES) for n in range(9)]  # all begin at one place
    for key in keys[:8]:
        assert buckets.take(key, 10, 30) == 0
    assert all(buckets.take(key, 10) > 0 for key in keys[:8])
    assert buckets.take(keys[8], 10) == 0
    assert sum(buckets.take(key, 10) == 0 for key in keys[:8]) <= 1
    seconds.now += 60  # all are full again: their places are free
    assert all(buckets.take(uuid.UUID(int=7 + n * PLACES), 10) == 0 for n in range(100))
