"""Dramatiq's command line, whose processes end with their master: ``python -m workers.group``.

Dramatiq forks its worker processes, which then import everything they need. If the master is
killed meanwhile, they would consume on as orphans.
"""

import os
import sys

from dramatiq.cli import main

from schemas import logs
from schemas.settings import load_settings
from workers.parent import children_end_with_their_parent

if __name__ == "__main__":
    children_end_with_their_parent()
    settings = load_settings()
    name = f"worker {os.environ.get('AUTORENEW_QUEUES', '')}".strip()
    logs.configure(name, settings.log_level, settings.log_format, dramatiq=True)
    sys.exit(main())  # type: ignore[no-untyped-call]
