"""The background jobs, as RQ calls them: JSON arguments, idempotent, quick.

Each job looks into SQL for what there is to do and does a bounded part of it; what is left it
enqueues again. So a job may be lost, run twice or beside itself, and nothing comes of it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from airavata_scheduler.backends import openbao, projection, relay, secret_collector, spicedb
from airavata_scheduler.backends.openbao_http import SecretsRefused, SecretsUnavailable
from airavata_scheduler.backends.spicedb import Fenced, PermissionsUnavailable
from airavata_scheduler.models import (
    audit_chain,
    counters,
    deployment,
    epoch,
    flow,
    leases,
)
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.database import connected
from airavata_scheduler.models.errors import AiravataError, ConfigurationError, Unavailable
from airavata_scheduler.models.wakeups import Wakeups
from airavata_scheduler.queue import cron, retention_rules
from airavata_scheduler.queue.announce import announce
from airavata_scheduler.queue.enqueue import enqueue

WITNESS_MS = 60_000  # how often the head of the audit's chain is written to the log
_WITNESSED = "audit:witnessed"
SWEEP_PART = 1000  # leases that one round of a sweep may end
INLINE_JOBS = 500  # jobs that a reconciler without Redis does before it looks at the clock again

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _Timers:
    """What jobs need of the configuration; the defaults are those of the settings."""

    offer_ack_s: float = 60.0
    requeue_after_s: float = 900.0
    outage_grace_s: float = 300.0
    retention_s: float = 168 * 3600.0


_timers = _Timers()


def configure(configuration: Configuration) -> None:
    """Take the timers from the configuration; once in each process that runs jobs."""
    counters.configure(configuration.sweep_window)
    spicedb.configure(configuration)
    openbao.configure(configuration)
    _timers.offer_ack_s = configuration.offer_ack_s
    _timers.requeue_after_s = configuration.requeue_after_s
    _timers.outage_grace_s = configuration.outage_grace_s
    _timers.retention_s = configuration.retention_s


def plan(experiment_id: str) -> None:
    """Open a submitted experiment: its first nodes, or the sentence why that cannot be."""
    with connected():
        announce(flow.plan(experiment_id))


def expand(node_id: str) -> None:
    """Queue the next window of a node's instances."""
    with connected():
        announce(flow.expand(node_id))


def finish(experiment_id: str) -> None:
    """Pass barriers, skip what cannot run, end what is done."""
    with connected():
        announce(flow.finish(experiment_id))


def sweep() -> None:
    """Tick, and end the leases and sessions that nobody speaks for."""
    with connected():
        if not cron.take(cron.SWEEP):
            return
        if epoch.tick(grace_s=_timers.outage_grace_s):
            _log.warning(
                "sweep: agents could not reach us; nothing expires until some time after that ended"
            )
        wakeups = Wakeups()
        wakeups.merge(leases.expire_offers(offer_ack_s=_timers.offer_ack_s, limit=SWEEP_PART))
        wakeups.merge(
            leases.expire_sessions(requeue_after_s=_timers.requeue_after_s, limit=SWEEP_PART)
        )
        announce(wakeups)


def reconcile() -> None:
    """Derive from SQL every job that is due and enqueue it; without Redis do it here."""
    with connected():
        if not cron.take(cron.RECONCILE):
            return
        for job, key in flow.due_work():
            if not enqueue(job, key):
                _run_chain(job, key)


def permissions() -> None:
    """Relay changes of grants that no request relayed; fill a SpiceDB that lost them."""
    with connected():
        if not cron.take(cron.PERMISSIONS):
            return
        try:
            if projection.ensure():
                _log.warning("permissions: SpiceDB did not hold our relationships; filled again")
            relay.relay()
        except (PermissionsUnavailable, Fenced) as error:
            _log.warning("permissions: not relayed, tried again soon: %s", error)


def sealing() -> None:
    """Chain the audit's newest entries; write the chain's head to the log now and then."""
    with connected():
        if not cron.take(cron.SEALING):
            return
        try:
            while audit_chain.seal() == audit_chain.BATCH:
                pass
            head = str(audit_chain.head())
        except audit_chain.HeadDamaged as error:
            _log.error("audit: nothing is sealed: %s", error)
            return
        if head != deployment.read(_WITNESSED) and not deployment.written_within(
            _WITNESSED, WITNESS_MS
        ):
            _log.info("audit: head %s", head)
            deployment.write(_WITNESSED, head)


def secrets() -> None:
    """Collect what OpenBao holds and no row names, and values whose time is over."""
    with connected():
        if not cron.take(cron.SECRETS):
            return
        try:
            secret_collector.collect()
        except (SecretsUnavailable, SecretsRefused, ConfigurationError) as error:
            _log.warning("secrets: not collected, tried again later: %s", error.detail)


def comparison() -> None:
    """Compare SpiceDB with the database, and mend what differs."""
    with connected():
        if not cron.take(cron.COMPARISON):
            return
        try:
            projection.reconcile()
        except PermissionsUnavailable as error:
            _log.warning("permissions: not compared, tried again later: %s", error)


def retention() -> None:
    """Delete bookkeeping rows that nobody needs any more, a bounded number of them."""
    with connected():
        if not cron.take(cron.RETENTION):
            return
        for table, count in retention_rules.delete_old(_timers.retention_s).items():
            if count:
                _log.info("retention: %d old rows deleted from %s", count, table)


BY_CLOCK: Final[Mapping[str, Callable[[], None]]] = {
    "sweep": sweep,
    "reconcile": reconcile,
    "permissions": permissions,
    "sealing": sealing,
    "secrets": secrets,
    "comparison": comparison,
    "retention": retention,
}

_STEPS: Final[Mapping[str, Callable[[str], Wakeups]]] = {
    "plan": flow.plan,
    "expand": flow.expand,
    "finish": flow.finish,
}


def run_here(name: str) -> None:
    """Run a clock's job in this process. Faults are logged: the clock goes on.

    Raises Unavailable when the database is away, which is no fault of the job.
    """
    try:
        BY_CLOCK[name]()
    except Unavailable:
        raise
    except Exception:  # noqa: BLE001 - the edge of the clock's loop: one job must not stop the rest
        _log.exception("job %s failed in the daemon itself; it comes again", name)


def _run_chain(job: str, key: str) -> None:
    """Do a job in this process, and those that follow from it, as long as Redis is away."""
    todo = deque([(job, key)])
    for _ in range(INLINE_JOBS):
        if not todo:
            return
        name, about = todo.popleft()
        try:
            wakeups = _STEPS[name](about)
        except Unavailable:
            raise
        except AiravataError as error:
            _log.warning("job %s-%s: %s", name, about, error.detail)
            continue
        todo += [("expand", node_id) for node_id in sorted(wakeups.expand)]
        todo += [("finish", experiment_id) for experiment_id in sorted(wakeups.finish)]
        wakeups.expand, wakeups.finish = set(), set()
        announce(wakeups)
