"""The one way to reach PostgreSQL: a server, or the primary among several, directly or through a
pooler in transaction mode.

Nothing of ours lives in a session. What every session needs is set for the database and its roles
by ``migrate`` (``migrations/settings.sql``).
"""

import re
import uuid
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.array import ListDumper
from pydantic_core import to_json
from sqlalchemy import URL, Engine, create_engine, event, text
from sqlalchemy import Connection as Transaction
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from schemas.connections import GRACE_SECONDS, Connection
from schemas.errors import AutorenewError, ConfigurationError, first_line
from schemas.tables.base import ROLES
from schemas.urls import split_database

MIGRATIONS = Path(__file__).parent / "migrations"
# A statement that waits for an exclusive lock makes all later ones wait: no longer than this.
MIGRATION_LOCK_TIMEOUT = "5s"
# For an answer where the server sets no ``statement_timeout``: a statement of an owner.
ANSWER_SECONDS = 25.0
# For a statement of a command whose user waits and can interrupt it, and for a few of the fleet.
PATIENT_SECONDS = 6 * 3600.0

_TARGET = {
    "connect_timeout": 5,
    # A server that is gone is noticed within half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "client_encoding": "UTF8",
}


def connect(
    url: str, *, pool_size: int = 5, application: str = "autorenew", patient: bool = False
) -> Engine:
    """An engine for ``postgresql://…``; nothing is opened before it is used.

    Of several hosts the one that takes writes is used, unless the URL's ``target_session_attrs``
    says otherwise. A connection to a server that does not take writes any more counts as lost,
    and with it all of the pool: the next ones go to the new primary.

    A transaction that only reads is best ended by a commit, as :meth:`Engine.begin` does: at a
    rollback, with which ``Engine.connect`` ends, psycopg forgets all statements it has prepared.

    Args:
        patient: a statement may take :data:`PATIENT_SECONDS`, whatever is set for its role.

    Raises:
        ConfigurationError: it is not such a URL.
    """
    try:
        split_database(url)
        _, _, rest = url.partition("://")
        given = conninfo_to_dict(f"postgresql://{rest}")
    except (ValueError, psycopg.Error):  # libpq's message could repeat a part of a password
        raise ConfigurationError("AUTORENEW_DATABASE_URL is not a URL of PostgreSQL") from None
    target: dict[str, Any] = {"target_session_attrs": "read-write", **_TARGET, **given}
    target |= {"application_name": application, "client_encoding": "UTF8"}
    conninfo = make_conninfo(**target)
    # The connection that was used last has its statements prepared.
    engine = create_engine(_shown(given), pool_size=pool_size, max_overflow=10, pool_use_lifo=True)

    disposal = _Disposal(engine)

    @event.listens_for(engine, "do_connect")
    def open_one(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> Any:
        disposed = disposal.times
        try:
            connection = Connection.connect(conninfo, context=options.get("context"))
        except psycopg.OperationalError as error:
            raise psycopg.OperationalError(_in_one_line(error)) from None
        connection.disposals = disposed
        return connection

    event.listen(engine, "engine_disposed", disposal.is_over)
    event.listen(engine, "checkin", disposal.close_late)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "handle_error", _note_lost_primary)
    event.listen(engine, "checkout", _use_no_lost_one)
    event.listen(engine, "reset", _end_patience)
    if patient:
        event.listen(engine, "begin", _begin_patiently)
    return engine


class _Disposal:
    """What a thread gives back after its engine was disposed of is closed, too: SQLAlchemy puts it
    into the pool of before, where nothing but the garbage collector ever finds it.

    Attributes:
        times: how often the engine was disposed of.
    """

    def __init__(self, engine: Engine) -> None:
        self.times = 0
        self._pool = engine.pool

    def is_over(self, engine: Engine) -> None:
        self.times += 1
        # Connections that were returned meanwhile.
        self._pool.dispose()
        self._pool = engine.pool

    def close_late(self, connection: Connection | None, record: ConnectionPoolEntry) -> None:
        if connection is not None and connection.disposals != self.times:
            record.invalidate()


def _shown(given: dict[str, Any]) -> URL:
    """The URL of an engine, from which nothing is connected: its first host stands for all."""
    host, _, _ = str(given.pop("host", "")).partition(",")
    port, _, _ = str(given.pop("port", "")).partition(",")
    named = {
        "username": given.pop("user", None),
        "password": given.pop("password", None),
        "database": given.pop("dbname", None),
    }
    rest = {name: str(value) for name, value in given.items()}
    url = URL.create("postgresql+psycopg", host=host or None, query=rest, **named)
    return url.set(port=int(port)) if port else url


_ATTEMPT = re.compile("- host: .*, hostaddr: (?:'[^']*'|None): (.+)")


def _in_one_line(error: psycopg.Error) -> str:
    """Why no connection was opened: each reason once, where several hosts or addresses failed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    attempts = [found[1] for line in lines if (found := _ATTEMPT.match(line))]
    return "; ".join(dict.fromkeys(attempts or lines)) or repr(error)


# The backend's id as the protocol told it: a pooler makes one up.
_SESSION = """
    SELECT pg_backend_pid(), current_setting('TimeZone') IN ('UTC', 'Etc/UTC'),
        extract(epoch FROM current_setting('statement_timeout')::interval)::float8
"""


def _prepare(connection: Connection, _record: object) -> None:
    """Make a new connection ready.

    Through a pooler statements are not prepared: it hands each transaction to another session.
    """
    try:
        _look(connection)
    except BaseException:
        connection.close()
        raise


def _look(connection: Connection) -> None:
    connection.adapters.register_dumper(list, _Lists)
    connection.autocommit = True
    found = connection.execute(_SESSION, prepare=False).fetchone()
    assert found is not None
    backend, is_utc, seconds = found
    connection.is_direct = backend == connection.info.backend_pid
    if not connection.is_direct:
        connection.prepare_threshold = None
    if not is_utc:  # before the first migrate; PgBouncer keeps it for this client
        connection.execute("SET TIME ZONE 'UTC'", prepare=False)
    connection.usual_seconds = connection.seconds = (seconds or ANSWER_SECONDS) + GRACE_SECONDS
    connection.autocommit = False


def be_patient(tx: Transaction) -> None:
    """Let the statements of this transaction take long, such as a forecast over all services."""
    tx.exec_driver_sql(_BE_PATIENT)
    _driver(tx).seconds = PATIENT_SECONDS + GRACE_SECONDS


def limit(tx: Transaction, seconds: float) -> None:
    """Give the statements of this transaction so long, whatever is set for the role."""
    tx.exec_driver_sql(f"SET LOCAL statement_timeout = '{seconds * 1000:.0f}ms'")
    _driver(tx).seconds = seconds + GRACE_SECONDS


# Not a query: the isolation level can still be set after it.
_BE_PATIENT = f"SET LOCAL statement_timeout = '{PATIENT_SECONDS:.0f}s'"


def _begin_patiently(tx: Transaction) -> None:
    connection = _driver(tx)
    try:
        connection.execute(_BE_PATIENT)  # not by ``tx``, which has yet to begin
    except psycopg.Error as error:
        raise OperationalError(_BE_PATIENT, None, error) from None
    connection.seconds = PATIENT_SECONDS + GRACE_SECONDS


def _driver(tx: Transaction) -> Connection:
    connection = tx.connection.driver_connection
    assert isinstance(connection, Connection)
    return connection


def _end_patience(connection: Connection, _record: object, _state: object) -> None:
    connection.seconds = connection.usual_seconds


def _use_no_lost_one(connection: Connection, _record: object, _proxy: object) -> None:
    """After a restart of the server, or of a pooler, its connections are opened anew before they
    are used: each process would lose the first thing it does, such as to claim a message."""
    if connection.is_lost():
        raise InvalidatePoolError("closed by the other end while it was idle")


def _note_lost_primary(context: ExceptionContext) -> None:
    """A server that takes no writes any more was the primary: look for the new one."""
    state = getattr(context.original_exception, "sqlstate", None)
    if state == "25006":  # read_only_sql_transaction
        context.is_disconnect = True


class _Lists(ListDumper):
    """Writes a list of UUIDs, which every statement over a batch is given, in one go: 0.2 us an id
    instead of 3.3."""

    def dump(self, obj: list[Any]) -> Any:
        if obj and type(obj[0]) is uuid.UUID:
            return b"{" + to_json(obj)[1:-1] + b"}"
        return super().dump(obj)


def is_data_error(error: BaseException) -> bool:
    """Whether PostgreSQL blames the data (SQLSTATE classes 22 and 23), or psycopg does, which
    sends it no text with a NUL."""
    state = _sqlstate(error)
    refused = isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.DataError)
    return state[:2] in ("22", "23") or (not state and refused)


def is_circumstance(error: BaseException) -> bool:
    """Whether the database had trouble of its own: a lost connection, a full disk, a deadlock.

    The same statement may succeed later. An error that is neither this nor a data error is a
    defect of ours: a missing column, a right that was not granted.
    """
    if isinstance(error, SQLAlchemyTimeoutError):
        return True  # no free connection in the pool
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    state = _sqlstate(error)
    # SQLSTATE: 08 connection, 25006 no primary any more, 25P03 idle too long, 40 rollback,
    # 53 resources, 55 prerequisites, 57 intervention, 58 system. A connection that could not be
    # opened or was cut has none.
    without_state = not state and isinstance(error.orig, psycopg.OperationalError)
    return (
        without_state
        or state in ("25006", "25P03")
        or state[:2] in ("08", "40", "53", "55", "57", "58")
    )


def is_conflict(error: BaseException) -> bool:
    """Whether it conflicted with another transaction and may be retried at once (class 40)."""
    return _sqlstate(error)[:2] == "40"


def is_too_slow(error: BaseException) -> bool:
    """Whether a statement was cancelled, most likely by its ``statement_timeout``."""
    return _sqlstate(error) == "57014"


def _sqlstate(error: BaseException) -> str:
    state = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
    return state or ""


def migrate(engine: Engine, passwords: dict[str, str]) -> None:
    """Bring the schema up to date and set the passwords of roles.

    Args:
        passwords: role, without the prefix ``autorenew_`` -> password.

    Raises:
        AutorenewError: ``table_locked``: a table is in use for too long. ``newer_release``: it was
            migrated by another release, which this one does not know. Nothing was changed.
    """
    try:
        _migrate(engine, passwords)
    except DBAPIError as error:
        # lock_not_available; deadlock_detected, with the fleet that works meanwhile
        if _sqlstate(error) not in ("55P03", "40P01"):
            raise
        raise AutorenewError(
            "a table is in use by another transaction, such as an audit; nothing was changed:"
            " run `autorenew migrate` again",
            code="table_locked",
        ) from None


def _migrate(engine: Engine, passwords: dict[str, str]) -> None:
    from alembic import command  # slow to import, and only this function needs it
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        _check_encoding(connection)
        be_patient(connection)
        connection.execute(
            text("SELECT set_config('lock_timeout', :timeout, true)"),
            {"timeout": MIGRATION_LOCK_TIMEOUT},
        )
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:  # its words name the revision
            raise AutorenewError(
                f"the database was migrated by another release: {first_line(error)}; run"
                " `autorenew migrate` of the newest release that it was used with",
                code="newer_release",
            ) from None
        # Everybody may read it, and a dump has it.
        connection.exec_driver_sql(f"COMMENT ON TABLE alembic_version IS '{newest_revision()}'")
        for name in ("close.sql", "settings.sql"):
            connection.exec_driver_sql((MIGRATIONS / name).read_text().replace("%", "%%"))
        for role, password in passwords.items():
            literal = connection.execute(
                text(
                    "SELECT format('ALTER ROLE %I LOGIN PASSWORD %L',"
                    " CAST(:role AS text), CAST(:password AS text))"
                ),
                {"role": f"autorenew_{role}", "password": password},
            ).scalar_one()
            connection.exec_driver_sql(literal.replace("%", "%%"))


def newest_revision() -> str:
    """Of the migrations of this release."""
    return max(path.name for path in (MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


def are_large_objects_open(engine: Engine) -> bool:
    """Whether any role may write large objects: only a superuser can close them."""
    closed = "SELECT has_function_privilege('autorenew_readonly', 'lo_creat(integer)', 'EXECUTE')"
    with engine.connect() as connection:
        return bool(connection.execute(text(closed)).scalar_one())


_IN_ORDER = text("""
    SELECT to_regclass('alembic_version') IS NOT NULL AS is_migrated, current_user AS role,
        coalesce(obj_description(to_regclass('alembic_version'), 'pg_class'), '') AS revision,
        current_setting('TimeZone') IN ('UTC', 'Etc/UTC')
        AND (current_user <> ALL(:roles) OR (
            current_setting('statement_timeout') <> '0'
            AND current_setting('idle_in_transaction_session_timeout') <> '0')) AS is_set
""")


def check_schema(engine: Engine) -> None:
    """Check that the database can be used.

    Raises:
        ConfigurationError: it cannot be reached, was not migrated to what this release needs, or
            its sessions lack settings.
    """
    try:
        with engine.connect() as connection:
            _check_encoding(connection)
            roles = [f"autorenew_{role}" for role in ROLES]
            found = connection.execute(_IN_ORDER, {"roles": roles}).one()
    except SQLAlchemyError as error:
        raise ConfigurationError(f"cannot use the database: {first_line(error)}") from None
    if not found.is_migrated:
        raise ConfigurationError("the database is empty: run `autorenew migrate` first")
    # A newer one is fine: processes of two releases run side by side during an update.
    if found.revision < newest_revision():
        raise ConfigurationError(
            f"the database has the schema {found.revision or 'of an older release'}, and this"
            f" release needs {newest_revision()}: run `autorenew migrate` first"
        )
    if not found.is_set:
        raise ConfigurationError(
            f"sessions of {found.role} in this database have another TimeZone than UTC, or no"
            " statement_timeout or idle_in_transaction_session_timeout: run `autorenew migrate`,"
            " and have a pooler open its connections anew"
        )


def _check_encoding(connection: Transaction) -> None:
    found = connection.execute(text("SHOW server_encoding")).scalar_one()
    if found != "UTF8":
        raise ConfigurationError(
            f"the database has the encoding {found}, and must have UTF8:"
            " create it with ENCODING 'UTF8' TEMPLATE template0"
        )
