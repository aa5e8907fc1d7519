"""How transactions that only read are written."""

import re
from pathlib import Path

import producers

HERE = Path(producers.__file__).parent.parent
# In autocommit, there is nothing to end.
AUTOCOMMIT = re.compile(r"_(at_once|claiming)\.connect\(\)")


def test_read_of_the_fleet_does_not_end_with_a_rollback() -> None:
    """Or psycopg forgets the statements that it has prepared, and each is planned anew."""
    found = [
        f"{path.relative_to(HERE)}:{number}"
        for folder in ("workers", "producers", "autorenew/console")
        for path in sorted((HERE / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(r"\.connect\(\) as \w+:", line) and not AUTOCOMMIT.search(line)
    ]

    assert found == []
