"""Requests about many tasks, of which somebody else has locked some for long.

An open transaction of an operator, or of a process that stands still, must not hold up the other
tasks of the same request. It waits for its locks as always; where that takes too long it is done
again without the tasks that others hold, and those stay without an answer: the agent asks again.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec, TypeVar

from airavata_scheduler.models.database import Contended, database, dialect, execute, marks
from airavata_scheduler.models.task_rows import TaskRow, lock_tasks, read_tasks

_P = ParamSpec("_P")
_R = TypeVar("_R")

_thread = threading.local()


def leaving_locked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Do `function` again without the tasks that others hold, where they make it fail.

    Inside an open transaction the outermost does it. SQLite has one lock for all.
    """

    @functools.wraps(function)
    def twice(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if database.in_transaction() or dialect() == "sqlite":
            return function(*args, **kwargs)
        try:
            return function(*args, **kwargs)
        except Contended:
            _thread.leaves = True
            try:
                return function(*args, **kwargs)
            finally:
                _thread.leaves = False

    return twice


class Wanted:
    """Tasks that a request names: those that are locked now, and those that are left out."""

    def __init__(self, task_ids: Iterable[str]) -> None:
        wanted = set(task_ids)
        if not getattr(_thread, "leaves", False):
            self.rows: Mapping[str, TaskRow] = lock_tasks(wanted)
            self._left: frozenset[str] = frozenset()
            return
        got = lock_tasks(wanted, leaves_locked=True)
        free = _free_nodes(row.node_id for row in got.values())
        self.rows = {row.id: row for row in got.values() if row.node_id in free}
        self._left = frozenset(read_tasks(wanted - self.rows.keys()))

    def leaves(self, task_id: str) -> bool:
        """Whether the task is there, and no answer about it can be given now."""
        return task_id in self._left


def _free_nodes(node_ids: Iterable[str]) -> set[str]:
    """Those whose counters can be changed: they are locked now."""
    wanted = sorted(set(node_ids))
    if not wanted:
        return set()
    rows = execute(
        f"SELECT id FROM nodes WHERE id IN ({marks(wanted)}) ORDER BY id FOR UPDATE SKIP LOCKED",
        wanted,
    )
    return {row[0] for row in rows}
