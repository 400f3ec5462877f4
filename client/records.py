"""What the server answers, as frozen records.

Each record names the fields that programs use, with a default where the server may leave one out,
so that a newer server's extra fields never break an older client. `raw` is the whole answer: what
`--json` prints. Times are `datetime` in UTC; durations carry their unit in the name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Any, ClassVar, Self

TERMINAL_STATES = frozenset({"COMPLETED", "FAILED", "CANCELLED", "SKIPPED"})


def instant(text: str | None) -> datetime | None:
    """An RFC 3339 time as an aware `datetime`; None stays None."""
    return None if text is None else datetime.fromisoformat(text)


@dataclass(frozen=True, kw_only=True)
class Record:
    """The base: reads itself from an answer, keeps the answer.

    Fields whose name ends in `_at` are times; `readers` says how other nested values are read.
    """

    readers: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Self:
        """The record of one JSON object.

        Raises `KeyError` where the object lacks a field that has no default.
        """
        values: dict[str, Any] = {"raw": answer}
        for entry in fields(cls):
            if entry.name == "raw":
                continue
            if entry.name in answer:
                values[entry.name] = cls._read(entry.name, answer[entry.name])
            elif entry.default is MISSING and entry.default_factory is MISSING:
                raise KeyError(f"{cls.__name__} without “{entry.name}”: {dict(answer)!r}")
        return cls(**values)

    @classmethod
    def _read(cls, name: str, value: Any) -> Any:
        if value is None:
            return None
        if name.endswith("_at"):
            return instant(value)
        reader = cls.readers.get(name)
        return reader(value) if reader else value


@dataclass(frozen=True, kw_only=True)
class User(Record):
    """A person with an account, or a service account (`kind`)."""

    id: str
    name: str
    kind: str = "person"
    email: str | None = None
    full_name: str | None = None
    is_admin: bool = False
    state: str = "active"
    version: int | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Group(Record):
    """Users and groups under one name; `role` is our own, None if we are in it through another."""

    id: str
    name: str
    description: str | None = None
    role: str | None = None
    version: int | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Project(Record):
    """What owns functions and experiments."""

    id: str
    name: str
    description: str | None = None
    role: str | None = None
    state: str = "active"
    version: int | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Resource(Record):
    """A compute or a storage resource."""

    id: str
    name: str
    kind: str
    description: str | None = None
    state: str = "active"
    version: int | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Share(Record):
    """A user or a group (`kind`) to whom an object is shared, and as what (`relation`)."""

    id: str
    kind: str
    name: str
    relation: str
    full_name: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class EnrolmentToken(Record):
    """A one-time right to enrol an agent; the token is shown once, here."""

    token: str
    expires_at: datetime | None = None
    install_line: str | None = None


@dataclass(frozen=True, kw_only=True)
class Agent(Record):
    """A program at a site that pulls work."""

    id: str
    name: str
    state: str
    seen_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Function(Record):
    """A named, versioned unit of work; `latest_version` counts from 1."""

    id: str
    name: str
    latest_version: int | None = None
    spec: Mapping[str, Any] | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Failure(Record):
    """Why a task failed: `kind` is user, infrastructure, limit or policy; `code` is stable."""

    kind: str | None = None
    code: str | None = None
    message: str | None = None
    traceback: str | None = None


@dataclass(frozen=True, kw_only=True)
class Call(Record):
    """One invocation of a function. `result` is the server's envelope, see `bundles.unpack`."""

    readers: ClassVar = {"failure": Failure.from_json}

    id: str
    state: str
    function: Any = None
    attempts: Any = None
    result: Mapping[str, Any] | None = None
    failure: Failure | None = None
    exit_code: int | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing about the call changes any more."""
        return self.state in TERMINAL_STATES


def traceback_of(call: Call) -> str | None:
    """The traceback that the agent printed: a field of its own, or behind the message."""
    if call.failure is None:
        return None
    return call.failure.traceback or (call.failure.message or "").partition("\n")[2] or None


@dataclass(frozen=True, kw_only=True)
class Experiment(Record):
    """A set of tasks declared in one file."""

    id: str
    name: str
    state: str
    total: int | None = None
    error: str | None = None
    version: int | None = None
    created_at: datetime | None = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        """Whether every task ended (a retry may open it again)."""
        return self.state in TERMINAL_STATES


@dataclass(frozen=True, kw_only=True)
class NodeProgress(Record):
    """How far one task of the file is; `counts` maps a lower-case state to instances."""

    name: str
    state: str | None = None
    total: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)


def _node_progress(nodes: Iterable[Mapping[str, Any]]) -> tuple[NodeProgress, ...]:
    return tuple(NodeProgress.from_json(node) for node in nodes)


@dataclass(frozen=True, kw_only=True)
class Progress(Record):
    """How far an experiment is. `rate_per_s` counts ended instances, `eta_s` may be unknown."""

    readers: ClassVar = {"nodes": _node_progress}

    state: str
    total: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    nodes: tuple[NodeProgress, ...] = ()
    rate_per_s: float | None = None
    eta_s: float | None = None

    @property
    def ended(self) -> int:
        """Instances that ended, however."""
        return sum(
            self.counts.get(name, 0) for name in ("completed", "failed", "cancelled", "skipped")
        )


@dataclass(frozen=True, kw_only=True)
class Task(Record):
    """One instance of a task of the file, such as `simulate[17]`.

    `id` is None while it exists only as a number of a sweep.
    """

    readers: ClassVar = {"failure": Failure.from_json}

    id: str | None
    name: str
    state: str
    experiment_id: str | None = None
    node: str | None = None
    index: int | None = None
    attempt: int | None = None
    parameters: Mapping[str, Any] | None = None
    exit_code: int | None = None
    failure: Failure | None = None
    reason: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def state_is_final(self) -> bool:
        """Whether nothing about the task changes any more (but for a retry, a new task)."""
        return self.state in TERMINAL_STATES


@dataclass(frozen=True, kw_only=True)
class Artifact(Record):
    """An output file: `size` in bytes, `sha256` in hex, `path` below the task's own directory."""

    id: str
    path: str
    size: int
    sha256: str
    node: str | None = None
    index: int | None = None
    output: str | None = None
