"""Private servers and fleets, for the embedded mode, the tests and the benchmarks."""

import signal
import sys


def end_on_sigterm() -> None:
    """Have SIGTERM unwind this process as Ctrl-C does, so that it stops its servers."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
