"""Whether a process's database role can do its work."""

from sqlalchemy import Engine, text

from schemas.errors import ConfigurationError

# All that a role was granted, and whoever is connected was not.
_MISSING = text("""
    WITH needed AS (
        SELECT c.oid, CAST(NULL AS text) AS name, g.privilege_type AS verb
        FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS g
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
          AND g.grantee = to_regrole(:role)
        UNION ALL
        SELECT c.oid, CAST(a.attname AS text), g.privilege_type
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        CROSS JOIN LATERAL aclexplode(a.attacl) AS g
        WHERE c.relnamespace = 'public'::regnamespace AND g.grantee = to_regrole(:role)
    )
    SELECT current_user AS who, count(*) FILTER (WHERE NOT CASE
        WHEN name IS NULL THEN has_table_privilege(oid, verb)
        ELSE has_column_privilege(oid, name, verb) END) AS missing
    FROM needed
""")


def check_role(engine: Engine, *roles: str) -> None:
    """Check that whoever this engine connects as may do the work of each of these roles.

    Args:
        roles: without the prefix ``autorenew_``.

    Raises:
        ConfigurationError: it may not: tasks would fail one by one.
    """
    with engine.connect() as tx:
        for role in roles:
            who, missing = tx.execute(_MISSING, {"role": f"autorenew_{role}"}).one()
            if missing:
                raise ConfigurationError(
                    f"AUTORENEW_DATABASE_URL connects as {who}, who lacks {missing} rights that"
                    f" this process needs: connect as autorenew_{role}"
                )
