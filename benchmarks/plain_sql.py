"""The yardstick: the rows that a task leaves, written by plain batched SQL on the same server.

For each batch of 500: insert the tasks, commit; lease them, commit; complete them and insert their
attempts, commit. The same tables and indexes, in a database of their own; no HTTP, no agent, no
lease that anybody checks.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
from psycopg2.extras import execute_values

BATCH = 500
_TASK = (
    "id, experiment_id, node_id, idx, generation, state, priority, available_at, cpu, ram_mb, gpu, "
    "attempt, failures, infra_failures, refusals, gate_open, created_at"
)
_ATTEMPT = (
    "lease_id, task_id, experiment_id, number, agent_id, session_id, compute_id, outcome, "
    "leased_at, started_at, finished_at, duration_ms, cpu_ms, max_rss_kb, report_digest"
)


def sqlite_rate(like: Path, folder: Path, tasks: int) -> float:
    """Tasks a second in a new SQLite file in `folder`, with the tables of `like`."""
    with closing(sqlite3.connect(like)) as source:
        found = source.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name IN ('tasks', 'attempts') AND sql NOT NULL"
        ).fetchall()
    path = folder / "plain.db"
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        for (sql,) in found:
            connection.execute(sql)
        started = time.monotonic()
        for rows, attempts in _batches(tasks):
            marks = ", ".join("?" * len(rows[0]))
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(f"INSERT INTO tasks ({_TASK}) VALUES ({marks})", rows)
            connection.execute("COMMIT")
            ids = [(row[0],) for row in rows]
            for state in (2, 5):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(f"UPDATE tasks SET state = {state} WHERE id = ?", ids)
                if state == 5:
                    marks = ", ".join("?" * len(attempts[0]))
                    connection.executemany(
                        f"INSERT INTO attempts ({_ATTEMPT}) VALUES ({marks})", attempts
                    )
                connection.execute("COMMIT")
        return tasks / (time.monotonic() - started)


def postgresql_rate(url: str, tasks: int) -> float:
    """Tasks a second in the PostgreSQL database."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        started = time.monotonic()
        for rows, attempts in _batches(tasks):
            execute_values(cursor, f"INSERT INTO tasks ({_TASK}) VALUES %s", rows, page_size=BATCH)
            connection.commit()
            ids = [row[0] for row in rows]
            for state in (2, 5):
                cursor.execute(
                    f"UPDATE tasks SET state = {state} WHERE id = ANY(%s::uuid[])", (ids,)
                )
                if state == 5:
                    execute_values(
                        cursor,
                        f"INSERT INTO attempts ({_ATTEMPT}) VALUES %s",
                        attempts,
                        page_size=BATCH,
                    )
                connection.commit()
        return tasks / (time.monotonic() - started)


def _batches(tasks: int) -> Iterator[tuple[list[Sequence[Any]], list[Sequence[Any]]]]:
    experiment, node, agent, session, compute = (str(uuid4()) for _ in range(5))
    now = int(time.time() * 1000)
    for start in range(0, tasks, BATCH):
        ids = [str(uuid4()) for _ in range(start, min(start + BATCH, tasks))]
        # No compute resource: no agent may find them.
        yield (
            [
                (one, experiment, node, start + n, 0, 1, 0, now, 1, 0, 0, 0, 0, 0, 0, True, now)
                for n, one in enumerate(ids)
            ],
            [
                (
                    *(uuid4().hex, one, experiment, 1, agent, session, compute, "COMPLETED"),
                    *(now, now, now, 1, 1, 1024, "0" * 64),
                )
                for one in ids
            ],
        )
