"""The one way to reach PostgreSQL."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from schemas.errors import ConfigurationError

MIGRATIONS = Path(__file__).parent / "migrations"


def connect(url: str, *, pool_size: int = 5, application: str = "autorenew") -> Engine:
    """An engine for ``postgresql://…``; nothing is opened before it is used."""
    try:
        parsed = make_url(url).set(drivername="postgresql+psycopg")
    except SQLAlchemyError as error:
        raise ConfigurationError(f"AUTORENEW_DATABASE_URL is not a URL: {error}") from None
    return create_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=10,
        connect_args={
            "application_name": application,
            "connect_timeout": 5,
            "options": "-c timezone=UTC -c jit=off",
        },
    )


def is_data_error(error: BaseException) -> bool:
    """Whether PostgreSQL blames the data (SQLSTATE classes 22 and 23), not the circumstances.

    A lost connection, a full disk, a deadlock or a serialization failure is not the subject's
    fault: it is put back and counts no attempt.
    """
    state = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
    return state is not None and state[:2] in ("22", "23")


def migrate(engine: Engine, passwords: dict[str, str]) -> None:
    """Bring the schema up to date and give the roles named in ``passwords`` their password."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        for role, password in passwords.items():
            literal = connection.execute(
                text(
                    "SELECT format('ALTER ROLE %I LOGIN PASSWORD %L',"
                    " CAST(:role AS text), CAST(:password AS text))"
                ),
                {"role": f"autorenew_{role}", "password": password},
            ).scalar_one()
            connection.exec_driver_sql(literal.replace("%", "%%"))


def check_schema(engine: Engine) -> None:
    """Refuse to work on a database that was not migrated, in one clear line."""
    try:
        with engine.connect() as connection:
            found = connection.execute(text("SELECT to_regclass('alembic_version')")).scalar_one()
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        raise ConfigurationError(f"cannot use the database: {reason}") from None
    if found is None:
        raise ConfigurationError("the database is empty: run `autorenew migrate` first")
