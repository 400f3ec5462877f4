"""Leases: an agent's right to run one attempt. The public face of this part of the room.

- `claiming` grants them, `starting` opens the gate and notes phases, `reporting` takes results,
- `releasing` takes them back by the agent's own word, `sweeping` when nobody speaks for them,
- `report_rules` holds the rules as pure functions, `settling` writes how tasks go on.
"""

from airavata_scheduler.models.claiming import claim
from airavata_scheduler.models.lease_records import (
    Claimed,
    Free,
    Grant,
    InlineLog,
    LeaseName,
    Mark,
    Reconciled,
    Released,
    Report,
    Reported,
    ReportedArtifact,
    ReportVerdict,
    Started,
    Truth,
)
from airavata_scheduler.models.releasing import reconcile_session, release, truth
from airavata_scheduler.models.reporting import report
from airavata_scheduler.models.starting import mark, start
from airavata_scheduler.models.sweeping import expire_offers, expire_sessions

__all__ = [
    "Claimed",
    "Free",
    "Grant",
    "InlineLog",
    "LeaseName",
    "Mark",
    "Reconciled",
    "Released",
    "Report",
    "ReportVerdict",
    "Reported",
    "ReportedArtifact",
    "Started",
    "Truth",
    "claim",
    "expire_offers",
    "expire_sessions",
    "mark",
    "reconcile_session",
    "release",
    "report",
    "start",
    "truth",
]
