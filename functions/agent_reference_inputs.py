"""Outputs of other tasks as inputs: `${simulate.RESULT}` and `${plot.PICTURE[*]}`.

One file stands at `inputs/<PARAMETER>/<file name>`; the matches of a pattern in the folder
`inputs/<PARAMETER>`; gathered ones there too, flat, each with its instance's number in front.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from airavata_scheduler.functions.agent_lease_access import HeldLease
from airavata_scheduler.models.database import execute
from airavata_scheduler.models.errors import NotFound
from airavata_scheduler.models.node_facts import graph_of

_PUBLISHED = (
    "SELECT a.idx, t.generation, a.id, a.path, a.size, a.sha256 FROM artifacts a "
    "JOIN tasks t ON t.id = a.task_id "
    "WHERE a.node_id = %s AND a.output = %s AND a.state = 'published'"
)


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A published artifact and where it goes in the task's directory."""

    path: str
    artifact_id: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A file that should be there and is not."""

    path: str
    why: str


@dataclass(frozen=True, kw_only=True)
class _Row:
    idx: int
    artifact_id: str
    path: str
    size: int
    sha256: str


def reference_files(
    lease: HeldLease, reference: dict[str, Any]
) -> tuple[str, list[PublishedFile | Absent]]:
    """What one reference stands for: the variable's text, and the files to fetch.

    The reference is one of the `references` of the lease's node.
    """
    node_id = _node_id(lease.experiment_id, reference["node"])
    folder = f"inputs/{reference['parameter']}"
    if reference["gather"]:
        rows = _newest(execute(_PUBLISHED + " ORDER BY a.idx", (node_id, reference["output"])))
        return folder, list(_gathered(folder, rows))
    instance = lease.idx // int(reference["divisor"])
    rows = _newest(
        execute(_PUBLISHED + " AND a.idx = %s", (node_id, reference["output"], instance))
    )
    if reference["many"]:
        return folder, list(_side_by_side(folder, rows))
    if not rows:
        source = f"{reference['node']}[{instance}].{reference['output']}"
        return folder, [Absent(path=folder, why=f"{source} was not published")]
    file = _file(f"{folder}/{_basename(rows[0].path)}", rows[0])
    return file.path, [file]


def _node_id(experiment_id: str, name: str) -> str:
    for node in graph_of(experiment_id):
        if node.name == name:
            return node.id
    raise NotFound(f"The experiment has no node {name!r}.", code="node_not_found")


def _newest(rows: Iterable[tuple[Any, ...]]) -> list[_Row]:
    """Of an instance that was run again, only the files of its newest run; in a stable order."""
    found = list(rows)
    newest: dict[int, int] = {}
    for idx, generation, *_ in found:
        newest[idx] = max(generation, newest.get(idx, 0))
    kept = [
        _Row(idx=idx, artifact_id=artifact_id, path=path, size=size, sha256=sha256)
        for idx, generation, artifact_id, path, size, sha256 in found
        if generation == newest[idx]
    ]
    return sorted(kept, key=lambda row: (row.idx, row.path))


def _gathered(folder: str, rows: list[_Row]) -> Iterable[PublishedFile]:
    twins = Counter((row.idx, _basename(row.path)) for row in rows)
    for row in rows:
        name = _basename(row.path)
        if twins[row.idx, name] > 1:
            name = row.path.replace("/", "-")
        yield _file(f"{folder}/{row.idx}-{name}", row)


def _side_by_side(folder: str, rows: list[_Row]) -> Iterable[PublishedFile]:
    names = Counter(_basename(row.path) for row in rows)
    flat = all(count == 1 for count in names.values())
    for row in rows:
        yield _file(f"{folder}/{_basename(row.path) if flat else row.path}", row)


def _file(path: str, row: _Row) -> PublishedFile:
    return PublishedFile(path=path, artifact_id=row.artifact_id, size=row.size, sha256=row.sha256)


def _basename(path: str) -> str:
    return path.rsplit("/", 1)[-1]
