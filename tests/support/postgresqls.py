"""Versions of PostgreSQL: the tests run on the newest of the environment's wheel, a few on others.

``AUTORENEW_LOCAL_POSTGRESQL`` runs every test on the version whose ``bin/`` is in that folder.
"""

from pathlib import Path

import pytest

from autorenew.local.postgres import installs
from tests.support.servers import postgresql

INSTALLED, OLDER, FETCHED = "15", "16", "17"
VERSIONS = (INSTALLED, OLDER, FETCHED)


def install_of(version: str) -> Path:
    """Where it is: installed by Debian, in the wheel, or fetched by ``ensure-postgresql.sh``.

    The test is skipped if the version is not on the machine; in CI one that can be fetched fails.
    """
    if version == FETCHED:
        return postgresql()
    if version == OLDER:
        return installs()[0]
    installed = Path("/usr/lib/postgresql") / version
    if not (installed / "bin/postgres").exists():
        pytest.skip(f"PostgreSQL {version} is not installed")
    return installed
