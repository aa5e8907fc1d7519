"""Metrics of a group of processes: those of all together, and what the kernel says of each.

Its processes keep their metrics in files of one folder, named by their pids. Whatever ended is
added up in one file, so that a group which is started again and again leaves no files behind, and
its counters still only go up.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

# Of no process: what those that ended have counted.
_ENDED = "0"
_ADDED_UP = ("counter", "histogram")
RESTARTS = "autorenew_worker_group_restarts"


class GroupMetrics(Collector):
    """
    Args:
        folder: ``PROMETHEUS_MULTIPROC_DIR`` of the group.
        processes: tells (name, pid) of each process that runs now; names are few.
    """

    def __init__(
        self, folder: Path, processes: Callable[[], Sequence[tuple[str, int]]] = lambda: ()
    ) -> None:
        self._folder = folder
        self._processes = processes
        self._lock = threading.Lock()  # what is moved is neither missed nor counted twice
        self._refused: set[str] = set()
        self._restarts = 0

    def restarted(self) -> None:
        """The group, or one of its processes, ended by itself, and is started again."""
        self._restarts += 1

    def describe(self) -> list[Metric]:
        """So that registering it collects nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            files = [str(file) for file in self._readable()]
            yield from MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        restarts = CounterMetricFamily(
            RESTARTS, "Times processes of the group ended by themselves and were started again."
        )
        restarts.add_metric([], self._restarts)
        yield restarts
        yield from _of_processes(self._processes())

    def bury(self, pid: int | None = None) -> None:
        """A process has ended: keep what it counted, and forget what it was doing.

        Args:
            pid: None: all have.
        """
        whose = "*" if pid is None else str(pid)
        with self._lock:
            for kind in _ADDED_UP:
                ended = self._folder / f"{kind}_{_ENDED}.db"
                others = [f for f in self._readable(f"{kind}_{whose}.db") if f != ended]
                if others:
                    _add_up(ended, others)
            for file in self._folder.glob(f"*_{whose}.db"):
                if file.stem.rpartition("_")[2] != _ENDED:
                    file.unlink(missing_ok=True)

    def _readable(self, pattern: str = "*.db") -> Iterator[Path]:
        """One file that a killed process left half-written must not hide all others."""
        for file in sorted(self._folder.glob(pattern)):
            try:
                for _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
                    pass
            except FileNotFoundError:
                continue
            except Exception as error:
                if file.name not in self._refused:
                    self._refused.add(file.name)
                    log.warning("metrics in %s cannot be read: %r", file.name, error)
                continue
            yield file


def _add_up(total: Path, others: Iterable[Path]) -> None:
    values: dict[str, float] = defaultdict(float)
    for file in others:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
            values[key] += value
    ended = MmapedDict(str(total))  # type: ignore[no-untyped-call]
    try:
        for key, value in values.items():
            known, timestamp = ended.read_value(key)  # type: ignore[no-untyped-call]
            ended.write_value(key, known + value, timestamp)  # type: ignore[no-untyped-call]
    finally:
        ended.close()  # type: ignore[no-untyped-call]


def _of_processes(processes: Iterable[tuple[str, int]]) -> Iterator[Metric]:
    """CPU, memory, files and start of each, as prometheus-client tells them of its own process."""
    families: dict[str, Metric] = {}
    for name, pid in processes:
        collector = ProcessCollector(pid=lambda pid=pid: pid, registry=None)  # type: ignore[misc]
        for found in collector.collect():  # nothing of one that has just ended
            kind = CounterMetricFamily if found.type == "counter" else GaugeMetricFamily
            family = families.setdefault(
                found.name, kind(found.name, found.documentation, labels=["worker"])
            )
            for sample in found.samples:
                family.add_sample(sample.name, {"worker": name}, sample.value)
    yield from families.values()


def children_of(pid: int) -> list[int]:
    """Processes that this one has started and that run, the oldest first."""
    found: set[int] = set()
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found |= {int(child) for child in file.read_text().split()}
        except OSError:  # a thread that ended
            continue
    return sorted(found)


def is_zombie(pid: int) -> bool:
    """Whether a process has ended, and its parent has not taken notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except OSError:
        return False
