"""Dramatiq's command line, whose processes end with their master: ``python -m workers.group``.

Dramatiq forks its worker processes, which then import everything they need. If the master is
killed meanwhile, they would consume on as orphans.
"""

import sys

from dramatiq.cli import main

from workers.parent import children_end_with_their_parent

if __name__ == "__main__":
    children_end_with_their_parent()
    sys.exit(main())  # type: ignore[no-untyped-call]
