"""Place orders from Python: one order a line of a file, as the database role `api`.

    AUTORENEW_DATABASE_URL=postgresql://autorenew_api:…@HOST/autorenew \\
        .venv/bin/python docs/examples/place.py docs/examples/orders.ndjson
"""

import os
import sys
from pathlib import Path

from producers.intake import Intake
from schemas.catalogue.store import CatalogueCache
from schemas.clock import SystemClock
from schemas.database import connect


def main() -> None:
    engine = connect(os.environ["AUTORENEW_DATABASE_URL"])
    intake = Intake(engine, CatalogueCache(), SystemClock())  # keep it: it holds the catalogue
    bodies = Path(sys.argv[1]).read_bytes().splitlines()
    for answer in intake.place("from-python", "python", bodies):
        print(answer.key, answer.verdict, [problem.code for problem in answer.problems])
    engine.dispose()


if __name__ == "__main__":
    main()
