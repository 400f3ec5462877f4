"""Groups in groups: who is in which group by way of others, and that nothing goes in a circle.

`WITH RECURSIVE` runs alike on all three databases. The closures stop at `MAX_DEPTH`, so that even a
circle that somebody wrote into the table by hand would not keep a query running.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from airavata_scheduler.models import deployment
from airavata_scheduler.models.database import execute, marks
from airavata_scheduler.models.errors import Conflict
from airavata_scheduler.models.ids import new_id

MAX_DEPTH: Final = 10  # groups on the longest way from an outermost one to an innermost one
MAX_MEMBERS: Final = 10_000  # users and groups that stand in one group itself

_LOCK: Final = "group_nesting"

# UNION, not UNION ALL: where many ways lead to a group, each length of way is followed once.
_HOLDERS: Final = f"""
WITH RECURSIVE holders (id, steps) AS (
  SELECT group_id, 1 FROM group_members WHERE subject_kind = 'group' AND subject_id = %s
  UNION
  SELECT m.group_id, holders.steps + 1
  FROM group_members m JOIN holders ON m.subject_id = holders.id AND m.subject_kind = 'group'
  WHERE holders.steps < {MAX_DEPTH}
)
SELECT id, MAX(steps) FROM holders GROUP BY id
"""
_HELD: Final = f"""
WITH RECURSIVE held (id, steps) AS (
  SELECT subject_id, 1 FROM group_members WHERE subject_kind = 'group' AND group_id = %s
  UNION
  SELECT m.subject_id, held.steps + 1
  FROM group_members m JOIN held ON m.group_id = held.id AND m.subject_kind = 'group'
  WHERE held.steps < {MAX_DEPTH}
)
SELECT id, MAX(steps) FROM held GROUP BY id
"""
_OF_USER: Final = f"""
WITH RECURSIVE mine (id, steps) AS (
  SELECT group_id, 1 FROM group_members WHERE subject_kind = 'user' AND subject_id = %s
  UNION
  SELECT m.group_id, mine.steps + 1
  FROM group_members m JOIN mine ON m.subject_id = mine.id AND m.subject_kind = 'group'
  WHERE mine.steps < {MAX_DEPTH}
)
SELECT DISTINCT id FROM mine
"""


def holders(group_id: str) -> dict[str, int]:
    """Every group that holds this one, near or far: its id, and the steps of the longest way."""
    return {str(row[0]): int(row[1]) for row in execute(_HOLDERS, (group_id,))}


def held(group_id: str) -> dict[str, int]:
    """Every group that is in this one, near or far: its id, and the steps of the longest way."""
    return {str(row[0]): int(row[1]) for row in execute(_HELD, (group_id,))}


def groups_of(user_id: str) -> list[str]:
    """The ids of the groups in which a user is, themselves or by way of other groups."""
    return [str(row[0]) for row in execute(_OF_USER, (user_id,))]


def lock_nesting() -> None:
    """Let no other transaction put groups into groups, or delete one, until this one has ended.

    Two insertions that only together close a circle touch no common row. So all of them pass one
    row; it is locked before any group is, and members who are users do not need it.
    """
    deployment.write(_LOCK, new_id())


def check_nesting(outer: str, inner: str) -> None:
    """Return if the group `inner` may be put into `outer`; call `lock_nesting` first.

    Raises Conflict `group_cycle` with the names the way round, or `group_too_deep`.
    """
    below = held(inner)
    if outer == inner or outer in below:
        way = _way(inner, outer, list(below)) if outer != inner else [inner]
        raise Conflict(
            "A group cannot be inside itself: " + " in ".join(_names([*reversed(way), outer])),
            code="group_cycle",
            field="group",
            hint="Take one of them out of the next one first.",
        )
    levels = max(holders(outer).values(), default=0) + 2 + max(below.values(), default=0)
    if levels > MAX_DEPTH:
        raise Conflict(
            f"Groups would lie {levels} deep in each other; {MAX_DEPTH} is the most.",
            code="group_too_deep",
            field="group",
        )


def _way(start: str, end: str, among: list[str]) -> list[str]:
    """The shortest way from the group `start` inwards to `end`, both included."""
    ids = [start, *among]
    rows = execute(
        "SELECT group_id, subject_id FROM group_members "
        f"WHERE subject_kind = 'group' AND group_id IN ({marks(ids)})",
        ids,
    )
    came_from = {start: start}
    queue = deque([start])
    while queue and end not in came_from:
        here = queue.popleft()
        for outer, inner in rows:
            if outer == here and inner not in came_from:
                came_from[inner] = here
                queue.append(inner)
    way = [end]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return way[::-1]


def _names(ids: list[str]) -> list[str]:
    rows = execute(f"SELECT id, name FROM user_groups WHERE id IN ({marks(ids)})", ids)
    names = {str(row[0]): str(row[1]) for row in rows}
    return [names.get(one, one) for one in ids]
