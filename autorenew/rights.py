"""The rights of the database roles, as the reference shows them: read from a migrated database.

``python -m autorenew.rights`` writes them into the page anew.
"""

import re
import tempfile
from collections import defaultdict
from pathlib import Path

from sqlalchemy import Connection, text

from autorenew.local.postgres import PrivatePostgres
from schemas.database import connect, migrate
from schemas.tables import ROLES

PAGE = Path(__file__).parents[1] / "docs/reference/database-roles.md"
BEGIN = "<!-- Written by `make rights`. -->\n"
END = "<!-- End of what `make rights` writes. -->"

VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE")

# Of whole tables, with NULL, and of columns. The owner's own rights are left out.
_GRANTS = text("""
    SELECT g.grantee::regrole::text AS role, c.relname AS name, NULL AS column_name, 0 AS place,
        g.privilege_type AS verb
    FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS g
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'p', 'S')
      AND g.grantee <> c.relowner
    UNION ALL
    SELECT g.grantee::regrole::text, c.relname, a.attname, a.attnum, g.privilege_type
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    CROSS JOIN LATERAL aclexplode(a.attacl) AS g
    WHERE c.relnamespace = 'public'::regnamespace AND g.grantee <> c.relowner
    ORDER BY 1, 2, 4, 5
""")
_POLICIES = text("""
    SELECT unnest(roles)::text AS role, tablename AS name, cmd AS verb, qual, with_check
    FROM pg_policies WHERE schemaname = 'public' ORDER BY 1, 2, 3
""")
_FUNCTIONS = text("""
    SELECT g.grantee::regrole::text AS role, p.proname AS name
    FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS g
    WHERE p.pronamespace = 'public'::regnamespace AND g.grantee NOT IN (0, p.proowner)
    ORDER BY 1, 2
""")
_ASKS = text("""
    SELECT role, step, string_agg(queue, ', ' ORDER BY queue) AS queues
    FROM enqueuers GROUP BY role, step ORDER BY role, step
""")
_MEMBERSHIPS = text("""
    SELECT m.member::regrole::text AS role,
        string_agg(m.roleid::regrole::text, ', ' ORDER BY m.roleid::regrole::text) AS of
    FROM pg_auth_members AS m WHERE m.member::regrole::text LIKE 'autorenew\\_%' GROUP BY 1
""")
_DATABASE = text("""
    SELECT g.grantee::regrole::text AS role,
        string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type) AS verbs
    FROM pg_database AS d CROSS JOIN LATERAL aclexplode(d.datacl) AS g
    WHERE d.datname = current_database() AND g.grantee <> d.datdba GROUP BY 1
""")


def table_of_rights(tx: Connection) -> str:
    """All that the roles may do in a database, in Markdown."""
    # Role -> table -> verb -> columns; no columns: all of them.
    rights: dict[str, dict[str, dict[str, list[str]]]] = defaultdict(lambda: defaultdict(dict))
    for grant in tx.execute(_GRANTS):
        columns = rights[grant.role][grant.name].setdefault(grant.verb, [])
        if grant.column_name is not None:
            columns.append(grant.column_name)
    rows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for policy in tx.execute(_POLICIES):
        rows[policy.role, policy.name].append(_shown_policy(*policy[2:]))
    functions: dict[str, list[str]] = defaultdict(list)
    for function in tx.execute(_FUNCTIONS):
        functions[function.role].append(function.name)
    asks: dict[str, list[str]] = defaultdict(list)
    for ask in tx.execute(_ASKS):
        asks[ask.role].append(f"`{ask.step}` ({ask.queues})")
    members = {row.role: row.of for row in tx.execute(_MEMBERSHIPS)}
    database = {row.role: row.verbs for row in tx.execute(_DATABASE)}

    unknown = (rights.keys() | functions.keys() | asks.keys() | database.keys()) - {
        f"autorenew_{role}" for role in ROLES
    }
    if unknown:
        raise ValueError(f"rights of roles that are not ours: {', '.join(sorted(unknown))}")
    lines = []
    for role in (f"autorenew_{role}" for role in ROLES):
        lines += [f"### `{role}`", "", f"The database: {database.get(role, 'nothing').lower()}."]
        if role in members:
            lines += [f"May do all that `{members[role]}` may."]
        if functions[role]:
            lines += [f"Functions: {', '.join(f'`{name}`' for name in functions[role])}."]
        if asks[role]:
            lines += [f"Asks for: {', '.join(asks[role])}."]
        lines += ["", "| table | select | insert | update | delete | rows |"]
        lines += ["|---|---|---|---|---|---|"]
        for name, verbs in sorted(rights[role].items()):
            cells = [_shown_columns(verbs.get(verb)) for verb in VERBS]
            which = "; ".join(rows[role, name])
            lines.append(f"| `{name}` | {' | '.join(cells)} | {which} |")
        lines.append("")
    return "\n".join(lines)


def _shown_columns(columns: list[str] | None) -> str:
    if columns is None:
        return ""
    return ", ".join(columns) or "all"


def _shown_policy(verb: str, using: str | None, check: str | None) -> str:
    which = "any" if using == "true" else f"`{_plain(using)}`"
    if check is not None:
        which += f", into `{_plain(check)}`"
    return which if verb == "ALL" else f"{verb.lower()}: {which}"


def _plain(condition: str | None) -> str:
    """As it was written, without the casts that PostgreSQL puts in."""
    return re.sub(r"::text(\[\])?", "", condition or "").replace("|", "\\|")


def written(page: str, table: str) -> str:
    """The page with this table in it."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = PrivatePostgres(Path(folder), fast=True)
        with server:
            server.ensure_database("rights")
            engine = connect(server.url("rights"))
            migrate(engine, {})
            with engine.connect() as tx:
                table = table_of_rights(tx)
            engine.dispose()
        server.remove()
    PAGE.write_text(written(PAGE.read_text(), table))


if __name__ == "__main__":
    main()
