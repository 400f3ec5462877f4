"""Uploads that the storage holds and the database forgot, when a failover lost its newest commits.

The agent that uploaded them has been told that they are stored, and its files may be gone by now.
An object under the key of a lease was put there by whoever held that lease, and only after its
bytes had the announced SHA-256.
"""

from __future__ import annotations

from airavata_scheduler.backends import stores
from airavata_scheduler.backends.storage import checked_key
from airavata_scheduler.functions import agent_artifacts
from airavata_scheduler.functions.agent_lease_access import HeldLease, unheld
from airavata_scheduler.models import leases
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.lease_records import Report, Reported, ReportedArtifact


def taken_up(session_id: str, reports: list[Report], reported: Reported) -> Reported:
    """The verdicts once more, after the rows of forgotten uploads have been written again."""
    again = [
        position
        for position, verdict in enumerate(reported.verdicts)
        if verdict.lacks and _restored(reports[position], verdict.lacks)
    ]
    if not again:
        return reported
    second = leases.report(session_id, [reports[position] for position in again])
    verdicts = list(reported.verdicts)
    for position, verdict in zip(again, second.verdicts, strict=True):
        verdicts[position] = verdict
    return Reported(verdicts=verdicts, wakeups=reported.wakeups | second.wakeups)


def _restored(report: Report, lacks: tuple[ReportedArtifact, ...]) -> bool:
    """Write the rows of uploads that are there; whether there was any."""
    lease = unheld(report.lease)
    if lease is None:
        return False
    places = {said: _place(lease, said) for said in lacks}
    for said, place in places.items():
        if place is not None:
            agent_artifacts.note(lease, said, place)
    return any(places.values())


def _place(lease: HeldLease, said: ReportedArtifact) -> agent_artifacts.Place | None:
    """Where the upload lies; None where it does not, or where nothing can lie."""
    try:
        checked_key(said.path)
        place = agent_artifacts.place_of(lease, said.path)
        size = stores.store(place.storage_id).size(place.key)
    except BadInput:
        return None
    return place if size == said.size else None
