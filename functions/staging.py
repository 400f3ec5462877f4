"""Resources that a document names: found once, when it is stored, as the one who stores it may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from airavata_scheduler.functions import access
from airavata_scheduler.models.errors import AiravataError


def usable(kind: Literal["compute_resource", "storage_resource"], name: str, field: str) -> str:
    """The id of a resource that the caller may use.

    Raises NotFound or Forbidden with `field`, the place in the document that names it.
    """
    try:
        return access.require(kind, name, "use").id
    except AiravataError as error:
        error.field = field
        raise


def with_storage_ids(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`stage_in` entries with the `storage_id` beside the name of each storage resource.

    The id decides at staging: a resource that is renamed later is still the same one. Raises as
    `usable` does.
    """
    found = [dict(entry) for entry in entries]
    ids = {
        name: usable("storage_resource", name, "resources.storage")
        for name in sorted({entry["storage"] for entry in found})
    }
    return [{**entry, "storage_id": ids[entry["storage"]]} for entry in found]
