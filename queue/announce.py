"""Tell everybody what a committed transaction changed: wake-ups to the waiting, jobs to RQ."""

from __future__ import annotations

from airavata_scheduler.models.wakeups import Wakeups
from airavata_scheduler.queue import wake
from airavata_scheduler.queue.enqueue import enqueue_many


def announce(wakeups: Wakeups) -> None:
    """Publish and enqueue what `wakeups` names. Never raises; call it after the commit."""
    subjects: list[wake.Subject] = []
    subjects += [("work", key) for key in wakeups.computes]
    subjects += [("task", key) for key in wakeups.tasks]
    subjects += [("experiment", key) for key in wakeups.experiments]
    subjects += [("attention", key) for key in wakeups.sessions]
    wake.publish_many(subjects)
    enqueue_many([("expand", key) for key in sorted(wakeups.expand)])
    enqueue_many([("finish", key) for key in sorted(wakeups.finish)])
