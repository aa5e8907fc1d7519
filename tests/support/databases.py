"""Databases for tests: copies of a template, which are emptied and used again.

To copy a database and to drop it costs half a second of processor time, thousands of times in a
run; to empty it and give it another name a tenth of that. A database whose schema, rights or
settings a test has changed is dropped.
"""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from autorenew.local.postgres import PrivatePostgres

# What is no row of a table: what exists, whose it is, who may do what, what is set. Compared by
# content: to migrate again writes the same anew.
_SHAPE = """
WITH ours AS (
    SELECT oid FROM pg_class WHERE oid >= 16384
), said (part, line) AS (
    SELECT 'class', concat_ws(' ', oid, relname, relkind, relowner, relacl, reloptions,
        relpersistence, relnamespace, relhastriggers, relrowsecurity, relhasrules)
    FROM pg_class WHERE oid >= 16384
    UNION ALL SELECT 'right', concat_ws(' ', oid, relacl) FROM pg_class WHERE oid < 16384
    UNION ALL SELECT 'column', concat_ws(' ', attrelid, attnum, attname, atttypid, attnotnull,
        attacl, attisdropped, attstattarget, attoptions)
    FROM pg_attribute JOIN ours ON attrelid = ours.oid
    UNION ALL SELECT 'default', concat_ws(' ', adrelid, adnum, adbin) FROM pg_attrdef
    UNION ALL SELECT 'constraint', concat_ws(' ', oid, conname, convalidated, conrelid, condeferred)
    FROM pg_constraint WHERE oid >= 16384
    UNION ALL SELECT 'index', concat_ws(' ', indexrelid, indisvalid, indisready, indisunique)
    FROM pg_index JOIN ours ON indexrelid = ours.oid
    UNION ALL SELECT 'trigger', concat_ws(' ', oid, tgname, tgenabled, tgfoid) FROM pg_trigger
    UNION ALL SELECT 'function', concat_ws(' ', oid, proname, proowner, proacl, prosrc, proconfig,
        prosecdef)
    FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT 'call', concat_ws(' ', oid, proacl) FROM pg_proc
    WHERE oid < 16384 AND proacl IS NOT NULL
    UNION ALL SELECT 'rule', concat_ws(' ', oid, ev_enabled, ev_action) FROM pg_rewrite
    WHERE oid >= 16384
    UNION ALL SELECT 'type', concat_ws(' ', oid, typname, typacl) FROM pg_type WHERE oid >= 16384
    UNION ALL SELECT 'namespace', concat_ws(' ', oid, nspname, nspowner, nspacl) FROM pg_namespace
    WHERE nspname !~ '^pg_(toast_)?temp_'
    UNION ALL SELECT 'extension', extname::text FROM pg_extension
    UNION ALL SELECT 'event trigger', evtname::text FROM pg_event_trigger
    UNION ALL SELECT 'policy', polname::text FROM pg_policy
    UNION ALL SELECT 'default right', concat_ws(' ', oid, defaclacl) FROM pg_default_acl
    UNION ALL SELECT 'object', oid::text FROM pg_largeobject_metadata
    UNION ALL SELECT 'publication', pubname::text FROM pg_publication
    UNION ALL SELECT 'statistic', concat_ws(' ', starelid, staattnum) FROM pg_statistic
    JOIN ours ON starelid = ours.oid
    UNION ALL SELECT 'remark', concat_ws(' ', objoid, objsubid, description) FROM pg_description
    JOIN ours ON objoid = ours.oid
    UNION ALL SELECT 'setting', concat_ws(' ', setrole, setconfig) FROM pg_db_role_setting
    WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL SELECT 'database', concat_ws(' ', datdba, datallowconn, datconnlimit)
    FROM pg_database WHERE datname = current_database()
    UNION ALL SELECT 'prepared', gid FROM pg_prepared_xacts WHERE database = current_database()
)
SELECT part, count(*), md5(string_agg(line, E'\\n' ORDER BY line COLLATE "C"))
FROM said GROUP BY part ORDER BY part
"""
# A table that holds or held rows, or that was analysed; whether it is worth new files: so is one
# that was analysed, since a plan would go by that.
_USED = """
SELECT oid::regclass::text, pg_relation_size(oid) > 65536 OR reltuples >= 0 FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
AND (pg_relation_size(oid) > 0 OR reltuples >= 0)
"""
_REFERENCES = """
SELECT confrelid::regclass::text, conrelid::regclass::text FROM pg_constraint
WHERE contype = 'f' AND conrelid <> confrelid
"""
_CONTENT = "SELECT md5(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\")) FROM {} AS t"
_END_OTHERS = """
SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_END_ALL = """
SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
WHERE datname = %(name)s AND backend_type = 'client backend'
"""
# Tries; each throws out whoever has connected since.
RENAMED_WITHIN = 3
# A copy has nobody's rights to connect, and to migrate gives them.
_RESET_RIGHTS = """
UPDATE pg_database SET datacl = NULL
WHERE datname = current_database() AND datacl IS NOT NULL
"""
_RESET_SEQUENCES = """
SELECT setval(seqrelid, seqstart, false) FROM pg_sequence
WHERE pg_sequence_last_value(seqrelid) IS NOT NULL
"""


@dataclass(frozen=True)
class _Filled:
    """A table that has rows in the template."""

    content: str
    rows: bytes


class _Changed(Exception):
    """Something else than rows was changed."""


class Databases:
    """Copies of a template, of which those that were given back are used again.

    Args:
        template: its rows, schema, rights and settings are those of each copy.
    """

    def __init__(self, postgres: PrivatePostgres, template: str) -> None:
        self._postgres = postgres
        self._template = template
        self._spare: list[str] = []
        self._shape: list[Any] | None = None
        self._filled: dict[str, _Filled] = {}
        self._references: list[tuple[str, str]] = []

    def take(self, name: str) -> None:
        """Make a database of this name, as the template is."""
        while self._spare:
            if self._rename(self._spare.pop(), name):
                return
        self._postgres.create_database(name, self._template)
        if self._shape is None:
            with psycopg.connect(self._postgres.url(name), autocommit=True) as connection:
                self._look(connection)

    def give_back(self, name: str) -> None:
        """It is used no more; whoever is still connected is thrown out."""
        try:
            with psycopg.connect(self._postgres.url(name), autocommit=True) as connection:
                self._clean(connection)
        except (_Changed, psycopg.Error):
            self._postgres.drop_database(name)
        else:
            self._spare.append(name)

    def _rename(self, old: str, new: str) -> bool:
        """False: somebody stays connected to it; it is dropped."""
        rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
        statement = rename.format(sql.Identifier(old), sql.Identifier(new))
        with psycopg.connect(self._postgres.url(), autocommit=True) as connection:
            for _ in range(RENAMED_WITHIN):
                try:
                    connection.execute(statement)
                except psycopg.errors.ObjectInUse:  # it waits five seconds for whoever leaves
                    connection.execute(_END_ALL, {"name": old})
                else:
                    return True
        self._postgres.drop_database(old)
        return False

    def _look(self, connection: psycopg.Connection[Any]) -> None:
        self._shape = shape(connection)
        self._references = connection.execute(_REFERENCES).fetchall()
        for table, _ in connection.execute(_USED).fetchall():
            content = _content(connection, table)
            if content is not None:
                query = sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(table))
                with connection.cursor().copy(query) as copy:
                    self._filled[table] = _Filled(content, b"".join(copy))

    def _clean(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute("SET statement_timeout = '30s'")
        connection.execute("SET lock_timeout = '10s'")
        connection.execute("SET session_replication_role = replica")  # no trigger objects
        connection.execute(_END_OTHERS)
        if shape(connection) != self._shape:
            raise _Changed
        used = dict(connection.execute(_USED).fetchall())
        for table, filled in self._filled.items():
            if _content(connection, table) == filled.content:
                used.pop(table, None)
        large = self._with_what_refers_to({table for table, is_large in used.items() if is_large})
        small = used.keys() - large
        with connection.transaction():
            if large:
                tables = sql.SQL(", ").join(map(sql.Identifier, sorted(large)))
                connection.execute(sql.SQL("TRUNCATE {}").format(tables))
            if small:  # new files for a table and its indexes cost more than its rows
                delete = sql.SQL("DELETE FROM {}")
                connection.execute(
                    sql.SQL("; ").join(delete.format(sql.Identifier(table)) for table in small)
                )
            for table in (large | small) & self._filled.keys():
                query = sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))
                with connection.cursor().copy(query) as copy:
                    copy.write(self._filled[table].rows)
            connection.execute(_RESET_SEQUENCES)
            connection.execute("SET LOCAL allow_system_table_mods = on")
            connection.execute(_RESET_RIGHTS)
        connection.execute("SELECT pg_stat_reset()")

    def _with_what_refers_to(self, tables: set[str]) -> set[str]:
        """PostgreSQL truncates no table without those that refer to it."""
        found = set(tables)
        while more := {b for a, b in self._references if a in found} - found:
            found |= more
        return found


def shape(connection: psycopg.Connection[Any]) -> list[Any]:
    """What there is of each kind in a database but its rows: name of the kind, number, digest."""
    return connection.execute(_SHAPE).fetchall()


def _content(connection: psycopg.Connection[Any], table: str) -> str | None:
    query = sql.SQL(_CONTENT).format(sql.Identifier(table))
    row = connection.execute(query).fetchone()
    return None if row is None else row[0]
