"""The script that writes the secrets of docker-compose.yml."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from schemas.secrecy import weakness

SCRIPT = Path(__file__).parents[2] / "scripts/make-env.sh"


def make_env(*words: object, umask: int = 0o022) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", str(SCRIPT), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        umask=umask,
    )


def read(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_every_secret_is_random_and_strong_and_fit_for_a_url(file: Path) -> None:
    done = make_env(file)
    assert (done.returncode, done.stdout.strip()) == (0, f"wrote {file}")
    secrets = read(file)
    assert len(set(secrets.values())) == len(secrets) == 21
    for secret in secrets.values():
        assert secret.isalnum()
        assert weakness(secret) is None


def test_file_is_readable_by_its_owner_only_whatever_the_umask_is(file: Path) -> None:
    make_env(file, umask=0)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    make_env("--force", file, umask=0)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_existing_file_is_left_as_it_is_and_what_it_lacks_is_named(file: Path) -> None:
    file.write_text("OWNER_PASSWORD=mine\nRELAY_PASSWORD=\n")
    done = make_env(file)
    assert done.returncode == 1
    assert "was left as it is; --force replaces it" in done.stderr
    assert "it has no RELAY_PASSWORD" in done.stderr
    assert "OWNER_PASSWORD" not in done.stderr
    assert file.read_text() == "OWNER_PASSWORD=mine\nRELAY_PASSWORD=\n"


def test_link_that_leads_nowhere_is_an_existing_file(file: Path) -> None:
    file.symlink_to(file.parent / "elsewhere")
    assert make_env(file).returncode == 1
    assert not (file.parent / "elsewhere").exists()


def test_existing_file_is_replaced_when_that_is_asked_for(file: Path) -> None:
    make_env(file)
    before = read(file)
    assert make_env("--force", file).returncode == 0
    after = read(file)
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())


def test_nothing_else_is_left_in_the_folder(file: Path) -> None:
    make_env(file)
    make_env(file)
    make_env("--force", file)
    assert os.listdir(file.parent) == [".env"]


def test_option_that_is_not_known_is_refused(file: Path) -> None:
    assert make_env("--frce", file).returncode == 2
    assert not file.exists()
