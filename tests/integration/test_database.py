"""Running SQL: alike on the three databases."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import peewee
import pytest

from airavata_scheduler.models import database as db
from airavata_scheduler.models import deployment
from airavata_scheduler.models.errors import Unavailable
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import Log, Project, Task, User
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("fresh_database")


def new_user(name: str) -> User:
    return User.create(id=new_id(), name=name, created_at=db.now_ms(), updated_at=db.now_ms())


def test_the_clock_is_in_milliseconds_and_stands_still_within_a_statement() -> None:
    """`now_ms` is the database's clock; within one statement it has one value."""
    before = time.time_ns() // 1_000_000

    found = db.now_ms()
    same = db.execute(f"SELECT {db.now_sql()}, {db.now_sql()}")[0]

    assert before - 2 <= found <= time.time_ns() // 1_000_000 + 2
    assert isinstance(found, int)
    assert same[0] == same[1]


def test_the_clock_moves_on_inside_a_transaction() -> None:
    """A transaction that waits does not stamp its rows with the time of its beginning."""
    with db.transaction():
        first = db.now_ms()

        wait_until(lambda: db.now_ms() > first, message="the clock to move on")


def test_values_come_back_alike() -> None:
    """Ids are text, bytes are bytes, sums are whole numbers, NULL is None."""
    user = new_user("ada")
    Log.create(lease_id="a" * 32, stream="stdout", task_id=user.id, size=3, inline=b"\x00\xff\n")

    rows = db.execute("SELECT id, password_hash FROM users")
    inline = db.execute('SELECT "inline" FROM logs')[0][0]
    total = db.execute("SELECT SUM(size) FROM logs")[0][0]

    assert rows == [(user.id, None)]
    assert inline == b"\x00\xff\n"
    assert Log.get().inline == b"\x00\xff\n"
    assert (type(total), total) == (int, 3)
    assert isinstance(User.get().id, str)


def test_names_compare_exactly() -> None:
    """Neither case nor a trailing blank nor an accent makes two names equal."""
    for name in ("ada", "Ada", "ada ", "adá", "ada\u0301", "\uff41da"):
        new_user(name)

    assert [row.name for row in User.select().where(User.name == "ada")] == ["ada"]
    assert db.execute("SELECT COUNT(*) FROM users WHERE name = %s", ("ada ",)) == [(1,)]


def test_text_of_every_kind_survives() -> None:
    """Emoji, quotes, percent signs, backslashes and long text come back as they went in."""
    text = 'π 🧪 it\'s "100 %s" \\ \n' + "x" * 100_000
    user = new_user("ada")
    Project.create(
        id=new_id(), name="%_\\'", description=text, owner_id=user.id, created_at=1, updated_at=1
    )

    assert Project.get(Project.name == "%_\\'").description == text


def test_a_value_that_is_too_long_is_refused() -> None:
    """PostgreSQL and MySQL cut nothing off silently; SQLite keeps it whole."""
    if db.dialect() == "sqlite":
        assert new_user("x" * 300).name == "x" * 300
        return

    with pytest.raises(peewee.DataError):
        new_user("x" * 300)


def test_change_counts_rows_that_match_not_rows_that_differ() -> None:
    """A fence that is repeated still sees its row."""
    new_user("ada")

    assert db.change("UPDATE users SET email = %s WHERE name = %s", ("a@b", "ada")) == 1
    assert db.change("UPDATE users SET email = %s WHERE name = %s", ("a@b", "ada")) == 1
    assert db.change("UPDATE users SET email = %s WHERE name = %s", ("a@b", "bob")) == 0


def test_reserved_words_are_quoted_alike() -> None:
    """`"signal"` and `"key"` name columns on every database, and TRUE is a value."""
    assert db.execute('SELECT "signal" FROM attempts WHERE "signal" = %s', (9,)) == []
    assert db.execute('SELECT "key" FROM idempotency_keys') == []
    assert db.execute("SELECT id FROM tasks WHERE gate_open = TRUE AND 'a' || 'b' = 'ab'") == []


def test_a_transaction_is_stored_whole_or_not_at_all() -> None:
    """An exception takes back everything in the block."""
    with pytest.raises(ZeroDivisionError), db.transaction():
        new_user("ada")
        raise ZeroDivisionError

    assert User.select().count() == 0


def test_an_inner_transaction_takes_back_only_itself() -> None:
    """After a broken constraint in an inner block the outer one goes on."""
    with db.transaction():
        new_user("ada")
        with pytest.raises(peewee.IntegrityError), db.transaction():
            new_user("bob")
            new_user("ada")
        new_user("eve")

    assert sorted(user.name for user in User.select()) == ["ada", "eve"]


def test_foreign_keys_are_kept() -> None:
    """A project of nobody is refused."""
    with pytest.raises(peewee.IntegrityError):
        Project.create(id=new_id(), name="p", owner_id=new_id(), created_at=1, updated_at=1)


def test_retried_repeats_after_a_deadlock() -> None:
    """Two transactions that lock two rows crosswise both succeed in the end, nested ones too.

    MariaDB drops the savepoints with the transaction: rolling back to one would be another error.
    """
    for name in ("a", "b"):
        deployment.write(name, "0")
    both_hold_one = threading.Barrier(2, timeout=10)
    tries: list[str] = []

    @db.retried
    def add_crosswise(first: str, second: str) -> None:
        sql = "UPDATE deployment SET at = at + 1 WHERE name = %s"
        with db.transaction(), db.transaction():
            db.change(sql, (first,))
            tries.append(first)
            if len(tries) <= 2 and db.dialect() != "sqlite":
                both_hold_one.wait()
            db.change(sql, (second,))

    before = dict(db.execute("SELECT name, at FROM deployment"))

    def in_thread(*names: str) -> None:
        with db.connected():
            add_crosswise(*names)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(in_thread, ("a", "b"), ("b", "a")))

    after = dict(db.execute("SELECT name, at FROM deployment"))
    assert after == {name: value + 2 for name, value in before.items()}
    assert len(tries) == (2 if db.dialect() == "sqlite" else 3)


def test_retried_gives_up_with_unavailable() -> None:
    """A function that never gets its turn ends in a 503 with a time to wait, not in a loop."""
    tries = []

    @db.retried
    def never() -> None:
        tries.append(1)
        raise db.Contended

    with pytest.raises(Unavailable) as caught:
        never()

    assert len(tries) == db.CONTENTION_TRIES
    assert caught.value.status == 503


def test_retried_leaves_other_errors_alone() -> None:
    """A broken constraint is not repeated."""
    tries = []

    @db.retried
    def twice() -> None:
        tries.append(1)
        new_user("ada")
        new_user("ada")

    with pytest.raises(peewee.IntegrityError):
        twice()

    assert len(tries) == 1


def test_more_threads_than_connections_wait_for_their_turn() -> None:
    """Every connection goes back to the pool, and nobody is turned away."""
    url_pool = db.database.obj
    url_pool._max_connections = 3

    def ask(_number: int) -> int:
        with db.connected():
            return int(db.execute("SELECT 1")[0][0])

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(ask, range(60))) == 60
    # The test's own thread holds one.
    assert len(url_pool._in_use) <= 1


def test_a_thread_that_ends_gives_its_connection_back() -> None:
    """A thread that never closed what it opened costs the pool nothing."""
    url_pool = db.database.obj
    url_pool._max_connections = 3

    for _ in range(9):
        thread = threading.Thread(target=db.checked_connection)
        thread.start()
        thread.join(10)

    assert len(url_pool._in_use) <= 1
    assert len(url_pool._connections) >= 1


def test_a_forked_child_uses_connections_of_its_own() -> None:
    """After a fork parent and child both go on, each on its own connection."""
    new_user("ada")
    parents = db.database.connection()
    child = os.fork()
    if child == 0:  # pragma: no cover  in the child
        status = 1
        try:
            new_user("child")
            status = 1 if db.database.connection() is parents else 0
        finally:
            os._exit(status)

    _, status = os.waitpid(child, 0)

    assert status == 0
    assert db.database.connection() is parents
    assert sorted(user.name for user in User.select()) == ["ada", "child"]


def test_locked_rows_are_left_to_those_who_have_them() -> None:
    """With `skip_locked` a second reader gets the other rows at once (SQLite: all, in its turn)."""
    for name in ("a", "b"):
        deployment.write(name, "")
    sql = f"SELECT name FROM deployment WHERE name IN (%s, %s){db.skip_locked()}"
    seen: list[tuple[str, ...]] = []

    def second() -> None:
        with db.connected(), db.transaction():
            seen.append(tuple(sorted(name for (name,) in db.execute(sql, ("a", "b")))))

    thread = threading.Thread(target=second)
    with db.transaction():
        assert db.execute(sql, ("a", "a")) == [("a",)]
        thread.start()
        if db.dialect() != "sqlite":
            thread.join(10)
            assert seen == [("b",)]
    thread.join(10)

    assert seen == [("a", "b")] if db.dialect() == "sqlite" else [("b",)]


def test_a_named_value_is_written_over() -> None:
    """`write` keeps the newest value and its time."""
    deployment.write("a", "1")
    deployment.write("a", "2")

    assert deployment.read("a") == "2"
    assert deployment.write_once("a", "3") == "2"
    assert deployment.read("b") is None


def test_the_claim_uses_its_index() -> None:
    """The claim's query reads the queue of one resource in order, and sorts nothing."""
    sql = (
        "SELECT id FROM tasks WHERE compute_id = %s AND state = 1 "
        "ORDER BY priority DESC, available_at LIMIT 10"
    )
    explain = "EXPLAIN QUERY PLAN" if db.dialect() == "sqlite" else "EXPLAIN"
    if db.dialect() == "postgresql":
        db.execute("SET enable_seqscan = off")  # the table is empty: it would not pay

    plan = " ".join(
        str(value) for row in db.execute(f"{explain} {sql}", (new_id(),)) for value in row
    )

    assert "tasks_claim" in plan
    for word in ("Sort", "filesort", "TEMP B-TREE"):
        assert word not in plan


def test_a_model_row_is_written_and_read() -> None:
    """Every default of a task is there, in Python and in the database."""
    task = Task.create(id=new_id(), experiment_id=new_id(), node_id=new_id(), idx=3, created_at=5)

    assert Task.get_by_id(task.id).__data__ == task.__data__ | {
        field.name: None for field in Task._meta.sorted_fields if field.null
    }
