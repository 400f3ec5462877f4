"""Databases that an earlier release made: their own file, rows in it, and the upgrade to ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from airavata_scheduler.models import database as db
from airavata_scheduler.models import migrations
from airavata_scheduler.models.tables import TABLES
from tests.integration.test_schema import _columns, upgraded

# As that release's own `make schema` wrote them: 1 is what came before groups, shares and secrets.
OLDER = Path(__file__).parent / "older"
ROW_ID = "01a21a00-0000-7000-8000-000000000001"
ROWS = (
    "INSERT INTO users (id, name, is_admin, state, version, email, full_name, created_at, "
    f"updated_at) VALUES ('{ROW_ID}', 'ada', TRUE, 'active', 1, '', '', 1, 1)",
    "INSERT INTO compute_resources (id, name, kind, description, owner_id, state, timers, limits, "
    "version, created_at, updated_at) VALUES "
    f"('{ROW_ID}', 'cluster', 'BARE_METAL', '', '{ROW_ID}', 'active', '{{}}', '{{}}', 1, 1, 1)",
    "INSERT INTO agents (id, compute_id, name, state, secret_hash, secret_set_at, token_version, "
    "host, version_text, capabilities, policy, created_at) VALUES "
    f"('{ROW_ID}', '{ROW_ID}', 'login01', 'active', 'h', 1, 1, '{{}}', '0.1.0', '{{}}', '{{}}', 1)",
)


# SQLite has no such file: its tables are made by the program (test_schema.py has that upgrade).
@pytest.mark.parametrize("database_kind", ["postgresql", "mariadb"], indirect=True)
def test_the_first_schema_with_rows_in_it_is_upgraded(
    database_url: str, database_kind: str
) -> None:
    """Every row is there afterwards, and the tables are those of a new database."""
    name = "1.sql" if database_kind == "postgresql" else "1.mysql.sql"
    db.connect(database_url)
    for statement in statements(OLDER / name):
        db.execute(statement)
    for row in ROWS:
        db.execute(row)

    assert migrations.upgrade() == ["trust"]
    migrations.check()

    assert db.execute("SELECT name, kind FROM users") == [("ada", "person")]
    assert db.execute("SELECT name, endpoint FROM compute_resources") == [("cluster", "")]
    assert db.execute("SELECT name, version_text FROM agents") == [("login01", "0.1.0")]
    db.disconnect()
    migrated = _columns(database_url)
    db.connect(database_url)
    for table in reversed(TABLES):
        db.execute(f'DROP TABLE "{table._meta.table_name}"')
    db.disconnect()
    assert migrated == _columns(upgraded(database_url))


def statements(path: Path) -> list[str]:
    """The statements of a schema's file, without what is psql's own."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith(("--", "\\"))]
    found = (text.strip() for text in "\n".join(lines).split(";\n"))
    return [text for text in found if text and text.rstrip(";") not in ("BEGIN", "COMMIT")]
