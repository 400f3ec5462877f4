"""The cron table: what the daemon's clock starts, and the row that makes it run once a period.

Every daemon has a clock. All of them may find an entry due and ask for it; the job itself first
takes the row `cron:<name>` of the table `deployment` by one conditional update on the database's
clock, and only one of them gets it.
"""

from __future__ import annotations

from dataclasses import dataclass

from airavata_scheduler.models import database
from airavata_scheduler.models.rows import insert_rows

OVERDUE_PERIODS = 3.0
PERIOD_WITHOUT_REDIS_S = 2.0  # jobs cannot be announced then, so the reconciler is all there is


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One background job; `name` is also the function in `jobs.py`.

    It is due `period_s` seconds after it last began, and never begins within `gap_s`: that holds
    between the clocks of several daemons.
    """

    name: str
    period_s: float
    gap_s: float

    @property
    def row(self) -> str:
        """The name of its row in `deployment`."""
        return f"cron:{self.name}"


SWEEP = Entry(name="sweep", period_s=5.0, gap_s=4.0)  # PROTOCOL.md section 4: a tick every 5 s
RECONCILE = Entry(name="reconcile", period_s=30.0, gap_s=1.0)
# Whatever a request that died did not relay; an empty SpiceDB is filled.
PERMISSIONS = Entry(name="permissions", period_s=2.0, gap_s=1.0)
# The audit is chained a moment after it is written.
SEALING = Entry(name="sealing", period_s=2.0, gap_s=0.5)
# What a deed that was cut off left in OpenBao; old values whose time is over.
SECRETS = Entry(name="secrets", period_s=15.0, gap_s=5.0)
# Both stores are read whole: rarely, for what nobody should be able to change behind our back.
COMPARISON = Entry(name="comparison", period_s=300.0, gap_s=60.0)
RETENTION = Entry(name="retention", period_s=600.0, gap_s=300.0)


def table(reconcile_period_s: float) -> tuple[Entry, ...]:
    """Every entry; `reconcile_period_s` is WORKER_INTERVAL."""
    reconcile = Entry(
        name=RECONCILE.name, period_s=reconcile_period_s, gap_s=min(1.0, reconcile_period_s / 2)
    )
    return (SWEEP, reconcile, PERMISSIONS, SEALING, SECRETS, COMPARISON, RETENTION)


def due(entries: tuple[Entry, ...], *, redis_is_up: bool) -> list[tuple[Entry, bool]]:
    """The entries whose period is over, each with whether it is long overdue (or never ran)."""
    rows = database.execute("SELECT name, at FROM deployment WHERE name LIKE %s", ("cron:%",))
    last_ms = {str(name): int(at) for name, at in rows}
    now_ms = database.now_ms()
    found = []
    for entry in entries:
        age_s = (now_ms - last_ms.get(entry.row, 0)) / 1000
        period_s = entry.period_s
        if entry.name == RECONCILE.name and not redis_is_up:
            period_s = min(period_s, PERIOD_WITHOUT_REDIS_S)
        if age_s >= period_s:
            found.append((entry, age_s >= period_s * OVERDUE_PERIODS))
    return found


@database.retried
def take(entry: Entry) -> bool:
    """Take the entry's turn; False if some process took it less than its gap ago.

    A turn is used up when it is taken: a run that fails comes again after its period.
    """
    now = database.now_sql()
    with database.transaction():
        taken = database.change(
            f"UPDATE deployment SET at = {now} WHERE name = %s AND at <= {now} - %s",  # noqa: S608
            (entry.row, int(entry.gap_s * 1000)),
        )
    return taken == 1 or _first_turn(entry)


def _first_turn(entry: Entry) -> bool:
    """Make the entry's row, which counts as its first turn; False where it is there already.

    Outside the update's transaction: two that wait for each other's row would be a deadlock.
    """
    if database.execute("SELECT 1 FROM deployment WHERE name = %s", (entry.row,)):
        return False
    made = insert_rows(
        "deployment",
        ("name", "value", "at"),
        [(entry.row, "", database.now_ms())],
        on_conflict="nothing",
    )
    return made == 1
