"""Invoices and credit notes are chained, and the history is sealed."""

from pathlib import Path

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Rather give up than have everybody wait behind whoever holds one of these tables for long.
    op.execute("SET LOCAL lock_timeout = '5s'")
    statements = (Path(__file__).parent / "0015_chain.sql").read_text()
    op.get_bind().exec_driver_sql(statements.replace("%", "%%"))
