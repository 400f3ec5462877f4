"""The sections `resources` and `placement`: what a task needs, and where it may run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from airavata_scheduler.models.durations import parse_walltime
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import Faults, Section, shown
from airavata_scheduler.models.parameters import check_name
from airavata_scheduler.models.paths import destination_path, storage_path

RESOURCE_KEYS = ("compute", "storage", "conda", "pip", "container", "modules", "environment")
COMPUTE_KEYS = ("node", "cpu", "gpu", "ram_gb", "disk_gb", "vram_gb", "time")
PLACEMENT_KEYS = ("compute", "objective", "deadline", "budget")
OBJECTIVES = ("time", "cost", "deadline")
SOFTWARE = ("conda", "pip", "container", "modules")
DEFAULT_SIZES = {
    "node": 1,
    "cpu": 1,
    "ram_mb": 0,
    "gpu": 0,
    "disk_mb": 0,
    "vram_mb": 0,
    "time_s": 0,
}
MAX_SIZE_GB = 1_048_576  # a PiB, whose MiB still fit in 31 bits
MAX_ENTRIES = 200
MAX_ENVIRONMENT_CHARS = 8192

_OBJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_BUDGET = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) core-hours?")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"(?:\.[0-9]{1,6})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one instance needs. `sizes` holds only what was said; see `DEFAULT_SIZES`."""

    sizes: dict[str, int] = field(default_factory=dict)
    stage_in: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    software: dict[str, Any] = field(default_factory=dict)

    def over(self, below: Needs) -> Needs:
        """These needs where they say something, else those of `below`; lists of storage add up."""
        return replace(
            self,
            sizes={**below.sizes, **self.sizes},
            stage_in=[*below.stage_in, *(e for e in self.stage_in if e not in below.stage_in)],
            environment={**below.environment, **self.environment},
            software={**below.software, **self.software},
        )

    def all_sizes(self) -> dict[str, int]:
        """Every size, with the defaults."""
        return {**DEFAULT_SIZES, **self.sizes}

    def all_software(self) -> dict[str, Any]:
        """Every kind of software, empty where nothing is wanted."""
        return {"conda": [], "pip": [], "container": None, "modules": [], **self.software}


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where an experiment may run and what its planner should aim at."""

    compute: list[str] = field(default_factory=list)  # names or ids; empty means any that fits
    objective: dict[str, float] = field(default_factory=dict)  # weights
    deadline_ms: int | None = None  # since the epoch, UTC
    budget_core_hours: float | None = None


def read_needs(faults: Faults, path: str, value: Any) -> Needs:
    """The `resources` section of an experiment, a task or a function."""
    section = Section(faults, path, value, RESOURCE_KEYS)
    software: dict[str, Any] = {
        kind: section.texts(kind, maximum=MAX_ENTRIES)
        for kind in ("conda", "pip", "modules")
        if section.has(kind)
    }
    if section.has("container"):
        image = section.texts("container", maximum=1)
        software["container"] = image[0] if image else None
    return Needs(
        sizes=_read_sizes(faults, section),
        stage_in=_read_storage(section),
        environment=_read_environment(section),
        software=software,
    )


def _read_sizes(faults: Faults, above: Section) -> dict[str, int]:
    section = Section(faults, above.where("compute"), above.value.get("compute"), COMPUTE_KEYS)
    sizes = {}
    for key, minimum, maximum in (("node", 1, 10_000), ("cpu", 0, 32_767), ("gpu", 0, 1024)):
        if section.has(key):
            sizes[key] = section.integer(key, minimum, minimum=minimum, maximum=maximum)
    for key in ("ram", "disk", "vram"):
        if section.has(f"{key}_gb"):
            gigabytes = section.number(f"{key}_gb", 0, minimum=0, maximum=MAX_SIZE_GB)
            sizes[f"{key}_mb"] = math.ceil(gigabytes * 1024)
    if section.has("time"):
        try:
            sizes["time_s"] = parse_walltime(section.value["time"])
        except BadInput as error:
            section.fault("time", error.code, error.detail)
    return sizes


def _read_storage(section: Section) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for position, text in enumerate(section.texts("storage", maximum=MAX_ENTRIES, max_chars=2200)):
        where = f"{section.where('storage')}[{position}]"
        try:
            entry = _storage_entry(text)
        except BadInput as error:
            section.faults.add(where, error.code, error.detail)
            continue
        if any(entry["destination"] == other["destination"] for other in entries):
            detail = f"{shown(entry['destination'])} is filled twice"
            section.faults.add(where, "duplicate_destination", detail)
        entries.append(entry)
    return entries


def _storage_entry(text: str) -> dict[str, Any]:
    storage, _, rest = text.partition(":")
    source, colon, destination = rest.rpartition(":")
    if not colon:
        source, destination = rest, ""
    if storage in {"local", "file", "."}:
        detail = "files of your own machine are not in a storage resource; list them under `files:`"
        raise BadInput(detail, code="bad_storage_entry")
    if not _OBJECT_NAME.fullmatch(storage) or not source or rest.startswith("//"):
        detail = f"{shown(text)} must be storage-name:/source:./destination"
        raise BadInput(detail, code="bad_storage_entry")
    path, folder = storage_path(source)
    if not destination:
        destination = path.rstrip("/").rpartition("/")[2]
    return {
        "storage": storage,
        "source": path,
        "destination": "."
        if destination in {".", "./"} and folder
        else destination_path(destination),
        "folder": folder,
    }


def _read_environment(section: Section) -> dict[str, str]:
    value = section.value.get("environment")
    where = section.where("environment")
    if isinstance(value, dict):
        pairs = [(str(name), text, f"{where}.{name}") for name, text in value.items()]
    else:
        pairs = []
        entries = section.texts("environment", maximum=MAX_ENTRIES, max_chars=MAX_ENVIRONMENT_CHARS)
        for position, entry in enumerate(entries):
            name, equals, text = entry.partition("=")
            if not equals:
                detail = f'{shown(entry)} must be "NAME=value"'
                section.faults.add(f"{where}[{position}]", "bad_environment", detail)
            else:
                pairs.append((name, text, f"{where}[{position}]"))
    environment: dict[str, str] = {}
    for name, text, path in pairs:
        _add_variable(section.faults, environment, path, name, text)
    return environment


def _add_variable(
    faults: Faults, environment: dict[str, str], where: str, name: str, value: Any
) -> None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > MAX_ENVIRONMENT_CHARS:
        detail = f"must be a text, not {shown(value)}; put it in quotes"
        faults.add(where, "not_a_text", detail)
        return
    try:
        check_name(name)
    except BadInput as error:
        faults.add(where, error.code, error.detail)
        return
    if name in environment:
        faults.add(where, "duplicate_key", f"{name} is set twice")
    environment[name] = value


def read_placement(faults: Faults, path: str, value: Any) -> Placement:
    """The `placement` section."""
    section = Section(faults, path, value, PLACEMENT_KEYS)
    objective = Section(
        faults, section.where("objective"), section.value.get("objective"), OBJECTIVES
    )
    weights = {
        key: objective.number(key, 0, minimum=0, maximum=1e6)
        for key in OBJECTIVES
        if objective.has(key)
    }
    if weights and not sum(weights.values()):
        section.fault("objective", "out_of_range", "at least one weight must be above 0")
    return Placement(
        compute=read_compute_names(section),
        objective=weights,
        deadline_ms=_read_deadline(section),
        budget_core_hours=_read_budget(section),
    )


def read_compute_names(section: Section) -> list[str]:
    """The names under `compute`; whether they exist is checked where resources are known."""
    names = section.texts("compute", maximum=MAX_ENTRIES)
    for position, name in enumerate(names):
        if not _OBJECT_NAME.fullmatch(name):
            where = f"{section.where('compute')}[{position}]"
            detail = f"{shown(name)} is not a name of a compute resource"
            section.faults.add(where, "bad_name", detail)
    return list(dict.fromkeys(names))


def _read_deadline(section: Section) -> int | None:
    text = section.text("deadline")
    if not text:
        return None
    advice = "write an instant with its zone, as in 2026-12-01T08:00:00Z"
    if not _INSTANT.fullmatch(text):
        section.fault("deadline", "bad_instant", f"{shown(text)} is not an instant; {advice}")
        return None
    try:
        instant = datetime.fromisoformat(text.upper()).astimezone(UTC)
        return int(instant.timestamp() * 1000)
    except (ValueError, OverflowError):  # a 61st second, month 13, or year 9999 west of Greenwich
        section.fault("deadline", "bad_instant", f"{shown(text)} is not in the calendar; {advice}")
        return None


def _read_budget(section: Section) -> float | None:
    value = section.value.get("budget")
    if value is None:
        return None
    written = _BUDGET.fullmatch(value) if isinstance(value, str) else None
    if written is None or float(written[1]) <= 0:
        section.fault("budget", "bad_budget", f'must be as in "40 core-hours", not {shown(value)}')
        return None
    return float(written[1])
