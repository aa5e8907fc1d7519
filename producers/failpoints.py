"""Named places where a test may kill the process, to prove that nothing is lost there.

``AUTORENEW_FAILPOINTS`` names a folder. The first process that passes a failpoint creates a file
with its name there and kills itself; later ones go on. If it is not set, a failpoint costs one
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
    "events.before_publish",
    "events.before_confirm",
    "events.after_confirm",
    "events.before_commit",
    "events.after_commit",
    "scheduler.before_commit",
    "scheduler.after_commit",
    "bulk.before_commit",
    "bulk.after_commit",
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
    """Kill this process if failpoints are on and none has been killed here yet."""
    if FOLDER is None:
        return
    try:
        (Path(FOLDER) / name).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
