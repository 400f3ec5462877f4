"""From a storage resource's id to the `Storage` that reads and writes it.

The default storage resource is made at the first start, in the folder STORAGE_PATH. It holds the
scheduler's own objects under the keys that this module spells.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import peewee

from airavata_scheduler.backends.posix import PosixStorage
from airavata_scheduler.backends.storage import Storage, StorageUnavailable
from airavata_scheduler.models import outbox
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import NotFound
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import StorageResource

DEFAULT_NAME = "default"

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_stores: dict[str, tuple[int, Storage]] = {}  # by id, with the row's version


def store(storage_id: str) -> Storage:
    """The storage resource with this id.

    Raises NotFound where there is none, and StorageUnavailable where it cannot be used now.
    """
    row = (
        StorageResource.select(
            StorageResource.kind, StorageResource.location, StorageResource.version
        )
        .where(StorageResource.id == storage_id)
        .tuples()
        .first()
    )
    if row is None:
        raise NotFound(f"There is no storage resource {storage_id}.")
    kind, location, version = row
    with _lock:
        known = _stores.get(storage_id)
    if known is not None and known[0] == version:
        return known[1]
    opened = _open(kind, location)
    with _lock:
        _stores[storage_id] = (version, opened)
    return opened


def _open(kind: str, location: dict[str, Any]) -> Storage:
    if kind == "NFS":
        return PosixStorage(Path(location["path"]))
    raise StorageUnavailable(
        f"Storage resources of kind {kind} cannot be used by this version of the scheduler.",
        hint="Use one of kind NFS: a folder that is mounted on the scheduler's machine.",
    )


def default_storage_id() -> str:
    """The id of the default storage resource. Raises StorageUnavailable before the first start."""
    row = (
        StorageResource.select(StorageResource.id)
        .where(StorageResource.is_default & (StorageResource.state == "active"))
        .order_by(StorageResource.id)
        .tuples()
        .first()
    )
    if row is None:
        raise StorageUnavailable(
            "There is no default storage resource yet.",
            hint="Start the server once (airavata-scheduler server); it makes one in STORAGE_PATH.",
        )
    return str(row[0])


def ensure_default_storage(config: Configuration) -> str:
    """Make the default storage resource in STORAGE_PATH unless there is one; its id.

    A default whose folder is gone is taken to have moved with STORAGE_PATH. Where both folders
    exist the recorded one stays, since it holds the files, and the log says so.
    """
    path = config.storage_path.expanduser().absolute()
    with transaction():
        found = (
            StorageResource.select()
            .where(StorageResource.is_default)
            .order_by(StorageResource.id)
            .dicts()
            .first()
        )
        storage_id = _insert_default(path) if found is None else str(found["id"])
        if found is not None and found["kind"] == "NFS":
            _follow(found, path)
    store(storage_id)
    return storage_id


def _insert_default(path: Path) -> str:
    """Two servers that start at once: the unique name lets one insert, the other reads it."""
    at = now_ms()
    storage_id = new_id()
    try:
        with transaction():
            StorageResource.insert(
                id=storage_id,
                name=DEFAULT_NAME,
                kind="NFS",
                description="The scheduler's own storage: artifacts, logs and blobs.",
                owner_id=None,
                project_id=None,
                location={"path": str(path)},
                is_default=True,
                created_at=at,
                updated_at=at,
            ).execute()
            outbox.resource_changed(("storage_resource", storage_id), None, None)
    except peewee.IntegrityError:
        return default_storage_id()
    return storage_id


def _follow(row: dict[str, Any], path: Path) -> None:
    recorded = Path(row["location"]["path"])
    if recorded == path:
        return
    if recorded.exists():
        _log.warning(
            "storage: STORAGE_PATH is %s, but the default storage resource lies in %s and stays "
            "there; move the folder and start again",
            path,
            recorded,
        )
        return
    StorageResource.update(
        location={"path": str(path)}, version=StorageResource.version + 1, updated_at=now_ms()
    ).where(StorageResource.id == row["id"]).execute()
    _log.warning("storage: the default storage resource moved from %s to %s", recorded, path)


def artifact_key(
    *, experiment_id: str, node: str, idx: int, attempt: int, lease_id: str, path: str
) -> str:
    """Where an attempt's output file is staged: the lease in the key fences other attempts."""
    return f"artifacts/{experiment_id}/{node}/{idx}/{attempt}-{lease_id}/{path}"


def log_key(task_id: str, attempt: int, lease_id: str, stream: str) -> str:
    """Where an attempt's `stdout` or `stderr` grows."""
    return f"logs/{task_id}/{attempt}-{lease_id}/{stream}"


def blob_key(project_id: str, sha256: str) -> str:
    """Where a project's bytes with that SHA-256 lie."""
    return f"blobs/{project_id}/{sha256}"
