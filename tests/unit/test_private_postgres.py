"""Which PostgreSQL a private server is of, and what is said if it cannot be."""

from pathlib import Path

import pytest

from autorenew.local.postgres import OTHER, PrivatePostgres
from schemas.errors import ConfigurationError


def test_folder_without_postgresql_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OTHER, str(tmp_path))

    with pytest.raises(ConfigurationError, match=f"{OTHER}: there is no bin/postgres in"):
        PrivatePostgres(tmp_path / "postgresql")


def test_cluster_of_another_version_is_refused_with_both(tmp_path: Path) -> None:
    server = PrivatePostgres(tmp_path / "postgresql")
    server._data.mkdir(parents=True)
    (server._data / "PG_VERSION").write_text("13\n")

    with pytest.raises(ConfigurationError, match=r"is of PostgreSQL 13, and .* has \d+: choose"):
        server.start()

    server.remove()
