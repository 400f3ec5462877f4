"""Many rows in one statement, alike on the three databases."""

from __future__ import annotations

import peewee
import pytest

from airavata_scheduler.models import database as db
from airavata_scheduler.models.ids import new_id, new_ids
from airavata_scheduler.models.rows import insert_or_add, insert_rows, update_rows, values_table
from airavata_scheduler.models.tables import Deployment, Task, TaskStat

pytestmark = pytest.mark.usefixtures("fresh_database")

_COLUMNS = ("id", "experiment_id", "node_id", "idx", "created_at")


def new_tasks(count: int) -> list[str]:
    """`count` tasks of one node; their ids in the order of `idx`."""
    ids, experiment, node = new_ids(count), new_id(), new_id()
    rows = [(task, experiment, node, position, 1) for position, task in enumerate(ids)]
    assert insert_rows("tasks", _COLUMNS, rows) == count
    return ids


def test_insert_rows_takes_more_rows_than_fit_one_statement() -> None:
    """1,201 rows go in by three statements, and the columns left out have their defaults."""
    new_tasks(1201)

    assert Task.select().count() == 1201
    assert db.execute("SELECT DISTINCT state, attempt, cpu FROM tasks") == [(0, 0, 1)]


def test_insert_rows_leaves_out_what_is_there() -> None:
    """With `on_conflict="nothing"` known keys are left out, and the new ones are counted."""
    columns = ("name", "value", "at")
    assert insert_rows("deployment", columns, [("a", "1", 1)], on_conflict="nothing") == 1

    added = insert_rows(
        "deployment", columns, [("a", "2", 2), ("b", "2", 2)], on_conflict="nothing"
    )

    assert added == 1
    assert sorted(db.execute("SELECT name, value FROM deployment")) == [("a", "1"), ("b", "2")]


def test_insert_rows_refuses_what_is_there_by_default() -> None:
    """Without `on_conflict` a known key is an error."""
    insert_rows("deployment", ("name", "value", "at"), [("a", "1", 1)])

    with pytest.raises(peewee.IntegrityError):
        insert_rows("deployment", ("name", "value", "at"), [("a", "1", 1)])


def test_insert_rows_forgives_nothing_but_known_keys() -> None:
    """With `on_conflict="nothing"` a value that is too long stays an error, and none is stored."""
    if db.dialect() == "sqlite":
        pytest.skip("SQLite has no lengths")

    with pytest.raises(peewee.DataError):
        insert_rows(
            "deployment", ("name", "value", "at"), [("x" * 65, "1", 1)], on_conflict="nothing"
        )

    assert Deployment.select().count() == 0


def test_update_rows_gives_each_row_its_own_values() -> None:
    """Numbers, text, NULL and ids are set row by row; a common assignment goes beside them."""
    ids = new_tasks(3)
    session = new_id()

    matched = update_rows(
        "tasks",
        ("id",),
        ("state", "reason", "session_id"),
        [(ids[0], 2, None, session), (ids[1], 3, "it's 100 %", None), (new_id(), 4, "x", None)],
        set_sql=f'"leased_at" = {db.now_sql()}',
        where_sql="t.state = 0",
    )

    rows = db.execute("SELECT state, reason, session_id, leased_at FROM tasks ORDER BY idx")
    assert matched == 2
    assert [row[:3] for row in rows] == [
        (2, None, session),
        (3, "it's 100 %", None),
        (0, None, None),
    ]
    assert rows[0][3] == rows[1][3]
    assert rows[2][3] is None


def test_update_rows_honours_the_whole_key_and_the_condition() -> None:
    """A row whose key fits only in part, or that the condition excludes, is left alone."""
    ids = new_tasks(3)

    matched = update_rows(
        "tasks",
        ("id", "attempt"),
        ("state",),
        [(ids[0], 0, 2), (ids[1], 1, 2), (ids[2], 0, 2)],
        where_sql="t.idx < 2",
    )

    assert matched == 1
    assert db.execute("SELECT state FROM tasks ORDER BY idx") == [(2,), (0,), (0,)]


def test_update_rows_takes_more_rows_than_fit_one_statement() -> None:
    """1,100 rows are matched in three statements."""
    ids = new_tasks(1100)

    assert update_rows("tasks", ("id",), ("state",), [(task, 1) for task in ids]) == 1100


def test_update_rows_matches_rows_that_have_the_values_already() -> None:
    """The same update again matches the same rows."""
    rows = [(task, 1) for task in new_tasks(2)]

    assert update_rows("tasks", ("id",), ("state",), rows) == 2
    assert update_rows("tasks", ("id",), ("state",), rows) == 2


def test_update_rows_finds_rows_by_their_key() -> None:
    """Joined by its primary key the table is looked up, never read as a whole."""
    ids = new_tasks(400)
    if db.dialect() == "postgresql":
        db.execute("ANALYZE tasks")
        db.execute("SET enable_seqscan = off")
    source, parameters = values_table("tasks", ("id", "lease_id"), [(task, "") for task in ids[:3]])
    explain = "EXPLAIN QUERY PLAN" if db.dialect() == "sqlite" else "EXPLAIN"

    plan = db.execute(
        f"{explain} SELECT t.idx FROM {source} JOIN tasks t ON t.id = v.id", parameters
    )

    text = " ".join(str(value) for row in plan for value in row)
    assert any(word in text for word in ("tasks_pkey", "PRIMARY", "sqlite_autoindex_tasks"))


def test_insert_or_add_counts_up() -> None:
    """New keys are inserted, known ones added to, and a key that comes twice is added up first."""
    compute = new_id()
    columns = (("compute_id", "outcome", "le_ms"), ("count", "sum_ms"))
    insert_or_add("task_stats", *columns, [(compute, "COMPLETED", 10, 1, 7)])

    insert_or_add(
        "task_stats",
        *columns,
        [
            (compute, "COMPLETED", 10, 2, 5),
            (compute, "FAILED", 10, 1, 1),
            (compute, "COMPLETED", 10, 1, 1),
        ],
    )

    rows = TaskStat.select().order_by(TaskStat.outcome).tuples()
    assert list(rows) == [(compute, "COMPLETED", 10, 4, 13), (compute, "FAILED", 10, 1, 1)]
