"""Reporting: attempts have ended, each with a verdict of its own.

One transaction a batch: lock the tasks, judge in memory, write everything in a handful of
statements whose number does not depend on the batch. What is acknowledged was committed with it:
the attempt, its short logs, its published artifacts and what follows for other tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from airavata_scheduler.models import attempts, events, stats
from airavata_scheduler.models.agent_session import Session, live_session
from airavata_scheduler.models.database import change, execute, marks, retried, transaction
from airavata_scheduler.models.fields import canonical_json
from airavata_scheduler.models.lease_records import (
    LeaseName,
    Report,
    Reported,
    ReportedArtifact,
    ReportVerdict,
)
from airavata_scheduler.models.node_facts import NodeFacts, facts_of
from airavata_scheduler.models.patience import Wanted, leaving_locked
from airavata_scheduler.models.report_rules import (
    OUTCOMES,
    digest,
    is_current,
    may_reattach,
    refusal_of,
    settlement_of,
)
from airavata_scheduler.models.rows import insert_rows
from airavata_scheduler.models.settling import settle
from airavata_scheduler.models.task_rows import TaskRow, read_tasks
from airavata_scheduler.models.wakeups import Wakeups

BATCH = 500  # reports in one transaction
BATCH_DEPENDENTS = 5000  # instances that one transaction may add below its tasks

_ACCEPTED = ReportVerdict(verdict="accepted")
_LATER = ReportVerdict(verdict="later")


def report(session_id: str, reports: Sequence[Report]) -> Reported:
    """Take in how attempts ended; a verdict for each, in order. One bad item never blocks the rest.

    A report that is repeated gets `duplicate`, or `conflict` when it says something else: the first
    one counts, the second is kept in the timeline. `later`: somebody else has locked the task for
    long, and the report has to come again. Raises NotFound or Conflict as `live_session`.
    """
    verdicts: list[ReportVerdict] = []
    wakeups = Wakeups()
    for batch in _batches(list(reports)):
        done = _report_batch(session_id, batch)
        verdicts += done.verdicts
        wakeups.merge(done.wakeups)
    return Reported(verdicts=verdicts, wakeups=wakeups)


def _batches(reports: list[Report]) -> Iterator[list[Report]]:
    """Slices of at most `BATCH` reports, shorter where many instances hang on each.

    A task comes once in each: what its second attempt says, after a failover that forgot both, is
    judged on what the first one left.
    """
    start = 0
    while start < len(reports):
        part = reports[start : start + BATCH]
        rows = read_tasks(r.lease.task_id for r in part)
        facts = facts_of(row.node_id for row in rows.values())
        added = length = 0
        seen: dict[str, LeaseName] = {}
        for item in part:
            row = rows.get(item.lease.task_id)
            added += _own_below(facts[row.node_id]) if row else 0
            other = seen.setdefault(item.lease.task_id, item.lease) != item.lease
            if length and (added > BATCH_DEPENDENTS or other):
                break
            length += 1
        yield part[:length]
        start += length


def _own_below(node: NodeFacts) -> int:
    return sum(child.own for child in facts_of(node.children).values()) if node.children else 0


@leaving_locked
@retried
def _report_batch(session_id: str, reports: list[Report]) -> Reported:
    with transaction():
        session = live_session(session_id)
        return _Batch(session, reports).settled()


class _Batch:
    """One batch under its locks."""

    def __init__(self, session: Session, reports: list[Report]) -> None:
        self.session, self.reports = session, reports
        self.wanted = Wanted(r.lease.task_id for r in reports)
        self.rows = self.wanted.rows
        self.facts = facts_of(row.node_id for row in self.rows.values())
        self.staged = _staged(reports)
        self.known = attempts.digests_of(self._not_current())
        self.accepted: dict[str, tuple[TaskRow, Report]] = {}  # by lease id
        self.taken: set[str] = set()  # tasks that have their accepted report in this batch
        self.disputes: list[tuple[str, str, dict[str, Any]]] = []

    def settled(self) -> Reported:
        """Judge and write the batch."""
        verdicts = [self._verdict(item) for item in self.reports]
        self._store_attempts()
        self._publish()
        settlements = self._settlements()
        wakeups = settle(settlements, self.session.now)
        events.add_many(self.disputes)
        return Reported(verdicts=verdicts, wakeups=wakeups)

    def _not_current(self) -> list[str]:
        """The leases whose earlier end has to be looked up; in the ordinary case none."""
        return sorted(
            {
                r.lease.lease_id
                for r in self.reports
                if (row := self.rows.get(r.lease.task_id)) is not None
                and not is_current(row, r.lease, self.session.agent_id)
            }
        )

    def _verdict(self, item: Report) -> ReportVerdict:
        row = self.rows.get(item.lease.task_id)
        if self.wanted.leaves(item.lease.task_id):
            return _LATER
        earlier = self._earlier_digest(item)
        if earlier is not None:
            return self._again(item, row, earlier)
        if row is None or row.id in self.taken or not self._may_end(row, item):
            return refusal_of(row, item.lease, self.session.agent_id)
        fault = _fault(item, self.staged)
        if fault is not None:
            lacks = tuple(a for a in item.artifacts if _named(item, a) not in self.staged)
            return ReportVerdict(verdict="invalid", message=fault, lacks=lacks)
        self.accepted[item.lease.lease_id] = (row, item)
        self.taken.add(row.id)
        return _ACCEPTED

    def _earlier_digest(self, item: Report) -> str | None:
        """The digest of a report of the same lease that was accepted before, if there was one."""
        if item.lease.lease_id in self.accepted:
            return digest(self.accepted[item.lease.lease_id][1])
        return self.known.get(item.lease.lease_id)

    def _again(self, item: Report, row: TaskRow | None, earlier: str) -> ReportVerdict:
        if digest(item) == earlier:
            return ReportVerdict(verdict="duplicate")
        if row is not None:
            said: dict[str, Any] = {"lease": str(item.lease), "outcome": item.outcome}
            said |= {"digest": digest(item)}
            said |= {"kept": earlier, "agent_id": self.session.agent_id}
            said |= {"failure_code": item.failure_code, "exit_code": item.exit_code}
            self.disputes.append((row.experiment_id, "report_conflict", said))
        return ReportVerdict(
            verdict="conflict",
            message="This lease was reported before with another outcome; the first one counts.",
        )

    def _may_end(self, row: TaskRow, item: Report) -> bool:
        if is_current(row, item.lease, self.session.agent_id):
            return True
        return may_reattach(row, item.lease, self.session)

    def _settlements(self) -> list[Any]:
        lost_before = attempts.agents_that_lost(
            row.id
            for row, item in self.accepted.values()
            if item.outcome in ("lost", "cancelled", "failed") and row.infra_failures
        )
        settlements = []
        for row, item in self.accepted.values():
            lost_on = len(lost_before.get(row.id, set()) | {self.session.agent_id})
            # The reported lease is the one on the row from now on: after a failover it may not be.
            held = row._replace(
                attempt=item.lease.attempt,
                lease_id=item.lease.lease_id,
                agent_id=self.session.agent_id,
                session_id=self.session.id,
                started_at=attempts.began_at(row, item, self.session.now),
            )
            retries = self.facts[row.node_id].retries
            settlements.append(settlement_of(held, item, retries, lost_on))
        return settlements

    def _store_attempts(self) -> None:
        session = self.session
        rows = [attempts.reported(row, item, session) for row, item in self.accepted.values()]
        attempts.store(rows, self.known)
        stats.add(
            (session.compute_id, OUTCOMES[item.outcome].value, max(0, item.duration_ms))
            for _, item in self.accepted.values()
        )
        insert_rows(
            "logs",
            ("lease_id", "stream", "task_id", "size", "inline", "truncated"),
            [
                (item.lease.lease_id, log.stream, row.id, log.size, log.data, log.truncated)
                for row, item in self.accepted.values()
                for log in item.logs
            ],
            on_conflict="nothing",  # a stream that was sent live is in the storage already
        )

    def _publish(self) -> None:
        """Publish the artifacts of attempts that succeeded; those of others stay staged."""
        ids = [
            self.staged[_named(item, a)][0]
            for _, item in self.accepted.values()
            if item.outcome == "completed"
            for a in item.artifacts
        ]
        if ids:
            change(
                "UPDATE artifacts SET state = 'published', published_at = %s "
                f"WHERE id IN ({marks(ids)})",
                [self.session.now, *ids],
            )


_Staged = dict[tuple[str, str, str], tuple[str, int, str]]


def _staged(reports: list[Report]) -> _Staged:
    """Uploaded artifacts by (lease id, output, path): their id, size and SHA-256."""
    tasks = sorted({r.lease.task_id for r in reports if r.artifacts})
    if not tasks:
        return {}
    rows = execute(
        "SELECT lease_id, output, path, id, size, sha256 FROM artifacts "
        f"WHERE task_id IN ({marks(tasks)})",
        tasks,
    )
    return {(row[0], row[1], row[2]): (row[3], row[4], row[5]) for row in rows}


def _named(item: Report, artifact: ReportedArtifact) -> tuple[str, str, str]:
    return item.lease.lease_id, artifact.output, artifact.path


def _fault(item: Report, staged: _Staged) -> str | None:
    """Why a report cannot be accepted as it is, or None. The agent mends it and reports again."""
    if item.result is not None:
        size = len(canonical_json(item.result))
        if size > attempts.RESULT_LIMIT:
            return f"result_too_large: {size} bytes of JSON; send more than 64 KiB as an artifact."
    if item.outcome != "completed":
        return None
    for said in item.artifacts:
        found = staged.get(_named(item, said))
        if found is None:
            return f"upload_missing: {said.output} {said.path!r} was not uploaded."
        if found[1:] != (said.size, said.sha256):
            return f"upload_differs: {said.output} {said.path!r} has another size or SHA-256."
    return None
