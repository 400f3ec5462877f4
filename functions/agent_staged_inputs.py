"""Data of storage resources as inputs: `scratch:/data/:./data/`.

A folder is listed file by file when its task passes the start gate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from airavata_scheduler.backends import stores
from airavata_scheduler.backends.storage import user_key
from airavata_scheduler.functions.agent_lease_access import HeldLease
from airavata_scheduler.functions.agent_reference_inputs import Absent
from airavata_scheduler.models.database import execute
from airavata_scheduler.models.errors import BadInput, Forbidden, NotFound
from airavata_scheduler.models.node_facts import node_facts

MAX_INPUTS = 20_000  # of one task; more belong into an archive or a folder of the site


@dataclass(frozen=True, kw_only=True)
class StagedFile:
    """One file for the task's directory; `of` names it to `staged_object`.

    `version` is the key for the agent's cache; without one the file is not there.
    """

    path: str
    of: str
    size: int | None
    version: str | None


@dataclass(frozen=True, kw_only=True)
class StagedObject:
    """Where one staged file lies now."""

    storage_id: str
    key: str
    size: int

    @property
    def etag(self) -> str:
        """Another one for another size; the store tells no version."""
        return hashlib.sha256(f"{self.storage_id}/{self.key}/{self.size}".encode()).hexdigest()


def staged_files(lease: HeldLease, spec: dict[str, Any]) -> Iterator[StagedFile | Absent]:
    """What the node's `stage_in` stands for; what asking again cannot mend is absent.

    Raises StorageUnavailable where a store cannot be reached now.
    """
    for position, entry in enumerate(spec["stage_in"]):
        try:
            yield from _entry_files(lease, position, entry)
        except (BadInput, Forbidden, NotFound) as error:
            why = f"{entry['storage']}:{entry['source']}: {error.detail}"
            yield Absent(path=entry["destination"], why=why)


def _entry_files(
    lease: HeldLease, position: int, entry: dict[str, Any]
) -> Iterator[StagedFile | Absent]:
    """One file, or the files of a folder."""
    storage_id = _usable_storage(entry, lease.project_id)
    store = stores.store(storage_id)
    source = user_key(entry["source"])
    if not entry["folder"]:
        size = store.size(source)
        yield _file(lease, entry["destination"], f"{position}/", size, storage_id + source)
        return
    listed = 0
    for item in store.list(source):
        inside = item.key[len(source) :].lstrip("/")
        destination = f"{entry['destination'].rstrip('/')}/{inside}"
        yield _file(lease, destination, f"{position}/{inside}", item.size, storage_id + item.key)
        listed += 1
        if listed > MAX_INPUTS:
            return
    if not listed:
        why = f"the folder {entry['source']} of {entry['storage']} is empty or is not there"
        yield Absent(path=entry["destination"], why=why)


def _file(
    lease: HeldLease, destination: str, of: str, size: int | None, whole_key: str
) -> StagedFile:
    # The store tells no version. Within one run of an experiment its inputs count as unchanged; a
    # retry (a new generation) stages them anew, since a mended file may have the same size.
    said = f"{lease.experiment_id}/{lease.generation}/{whole_key}/{size}"
    return StagedFile(
        path=destination.removeprefix("./"),
        of=of,
        size=size,
        version=None if size is None else hashlib.sha256(said.encode()).hexdigest(),
    )


def _usable_storage(entry: dict[str, Any], project_id: str) -> str:
    """The id of the entry's storage resource, if tasks of the project may read it.

    By the id that was found when the document was stored: its name may be another's by now.
    """
    rows = execute(
        "SELECT id FROM storage_resources WHERE id = %s AND state = %s "
        "AND (project_id IS NULL OR project_id = %s)",
        (entry["storage_id"], "active", project_id),
    )
    if not rows:
        raise NotFound(
            f"The project has no active storage resource called {entry['storage']!r}.",
            code="storage_not_found",
        )
    return str(rows[0][0])


def staged_object(lease: HeldLease, of: str) -> StagedObject:
    """The file that the start gate called `of`. Raises NotFound `input_missing`."""
    position, _, inside = of.partition("/")
    entry = node_facts(lease.node_id).spec["stage_in"][int(position)]
    storage_id = _usable_storage(entry, lease.project_id)
    key = user_key(f"{entry['source']}/{inside}")
    size = stores.store(storage_id).size(key)
    if size is None:
        raise NotFound(
            f"An input is missing: {entry['storage']}:/{key} is no file.", code="input_missing"
        )
    return StagedObject(storage_id=storage_id, key=key, size=size)
