"""Named places where a test may kill the process, to prove that nothing is lost there.

``AUTORENEW_FAILPOINTS`` names a folder. Whoever passes a failpoint first creates a file of
its name in that folder and dies; everybody after that goes on. Unset, a failpoint is one
comparison.
"""

import os
import signal
from pathlib import Path

FOLDER = os.environ.get("AUTORENEW_FAILPOINTS")

NAMES = (
    "intake.before_commit",
    "intake.before_ack",
    "intake.after_ack",
    "relay.before_dispatch",
    "relay.before_publish",
    "relay.before_confirm",
    "relay.after_confirm",
    "scheduler.before_commit",
    "scheduler.after_commit",
    "worker.before_claim",
    "worker.after_claim",
    "worker.after_begin",
    "worker.before_call",
    "worker.after_call",
    "worker.before_finish",
    "worker.after_finish",
    "worker.before_ack",
    "worker.after_ack",
)


def failpoint(name: str) -> None:
    """Die here, if this place is armed and nobody has died here before."""
    if FOLDER is None:
        return
    try:
        (Path(FOLDER) / name).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
