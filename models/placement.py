"""Which compute resources can run a node, how much of it each gets, and why.

A resource is able when its limits allow an instance and one of its agents could take it. Agents
that are not there now count as well: what they can do is known from their last session. A resource
that has never seen an agent is taken at the word of its limits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from airavata_scheduler.models.database import execute, now_sql

LIVE_MS = 90_000  # an agent that spoke so recently has capacity to offer

_CLAUSE = re.compile(
    r"\s*(>=|<=|==|!=|~=|>|<)?\s*([0-9]+)(?:\.([0-9]+))?(?:\.[0-9*]+)?\s*", re.ASCII
)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A compute resource with what its agents said of themselves."""

    id: str
    name: str
    limits: dict[str, Any]
    agents: tuple[dict[str, Any], ...]
    live_cpu: int  # cores of the agents that are there now


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One compute resource as seen for one node: whether it is able, its share now, and why."""

    compute: Compute
    able: bool
    share: float
    why: str


def usable_computes(project_id: str, allowed: Collection[str] = ()) -> list[Compute]:
    """The active compute resources that a project may use, of those `allowed` (empty: all)."""
    rows = execute(
        "SELECT id, name, limits FROM compute_resources "
        "WHERE state = 'active' AND (project_id IS NULL OR project_id = %s) ORDER BY name",
        [project_id],
    )
    agents: dict[str, list[dict[str, Any]]] = {}
    cores: dict[str, int] = {}
    for compute_id, text, alive in execute(
        "SELECT a.compute_id, a.capabilities, CASE WHEN s.ended_at IS NULL "
        f"AND s.heartbeat_at > {now_sql()} - {LIVE_MS} THEN 1 ELSE 0 END "
        "FROM agents a LEFT JOIN agent_sessions s ON s.id = a.session_id "
        "WHERE a.state IN ('active', 'draining')"
    ):
        capabilities = json.loads(text) if text else {}
        if capabilities:
            agents.setdefault(compute_id, []).append(capabilities)
        if alive:
            cores[compute_id] = cores.get(compute_id, 0) + max(1, _whole(capabilities.get("cpu")))
    return [
        Compute(
            id=row[0],
            name=row[1],
            limits=json.loads(row[2]) if row[2] else {},
            agents=tuple(agents.get(row[0], ())),
            live_cpu=cores.get(row[0], 0),
        )
        for row in rows
        if not allowed or row[0] in allowed
    ]


def choose(spec: Mapping[str, Any], computes: Collection[Compute]) -> list[Choice]:
    """A choice for each compute resource; the shares of those that can run the node add up to 1.

    Shares follow the cores that are there now; where none is, all that can run it get the same.
    """
    named = set(spec.get("compute") or ())
    misfits = {compute.id: _misfit(spec, named, compute) for compute in computes}
    able = [compute for compute in computes if misfits[compute.id] is None]
    cores = sum(compute.live_cpu for compute in able)
    choices = []
    for compute in computes:
        why = misfits[compute.id]
        if why is not None:
            choices.append(Choice(compute=compute, able=False, share=0.0, why=why))
        elif cores:
            share = compute.live_cpu / cores
            why = f"{compute.live_cpu} of {cores} cores that are there now"
            choices.append(Choice(compute=compute, able=True, share=share, why=why))
        else:
            why = "it can run this; no agent is there now"
            choices.append(Choice(compute=compute, able=True, share=1 / len(able), why=why))
    return choices


def _misfit(spec: Mapping[str, Any], named: set[str], compute: Compute) -> str | None:
    """Why a compute resource cannot run a node, or None."""
    if named and compute.name not in named and compute.id not in named:
        return "the node names other resources"
    beyond = _beyond_limits(spec.get("resources") or {}, compute.limits)
    if beyond is not None:
        return beyond
    reasons = [_beyond_agent(spec, agent) for agent in compute.agents]
    if reasons and all(reason is not None for reason in reasons):
        return f"none of its {len(reasons)} agents can: {reasons[0]}"
    return None


def _beyond_limits(needs: Mapping[str, Any], limits: Mapping[str, Any]) -> str | None:
    for need, limit, unit, factor in (
        ("cpu", "max_cpu", "cores", 1),
        ("ram_mb", "max_ram_gb", "MiB of memory", 1024),
        ("gpu", "max_gpu", "GPUs", 1),
        ("time_s", "max_time_s", "s", 1),
    ):
        wanted, most = _whole(needs.get(need)), limits.get(limit)
        if most is not None and wanted > float(most) * factor:
            return f"it allows {float(most) * factor:g} {unit}, {wanted} are asked for"
    return None


def _beyond_agent(spec: Mapping[str, Any], agent: Mapping[str, Any]) -> str | None:
    needs = spec.get("resources") or {}
    for need, unit in (
        ("cpu", "cores"),
        ("ram_mb", "MiB of memory"),
        ("gpu", "GPUs"),
        ("disk_mb", "MiB of disk"),
    ):
        wanted, has = _whole(needs.get(need)), agent.get(need)
        if has is not None and wanted > _whole(has):
            return f"it has {_whole(has)} {unit}, {wanted} are asked for"
    missing = sorted(set(spec.get("features") or ()) - set(agent.get("features") or ()))
    if missing:
        return f"it does not offer {', '.join(missing)}"
    required = (spec.get("python") or {}).get("requires_python")
    if required and agent.get("python") and not python_fits(str(required), str(agent["python"])):
        return f"it has Python {agent['python']}, {required} is asked for"
    return None


def python_fits(required: str, version: str) -> bool:
    """Whether a Python `version` ("3.11.7") meets `required` (">=3.9,<3.13", "3.11").

    Only major and minor numbers count: bytecode and pickles do not depend on more. A bare number
    asks for exactly that version; a clause that cannot be read refuses nothing.
    """
    found = _CLAUSE.fullmatch(version)
    if found is None:
        return True
    has = (int(found[2]), int(found[3] or 0))
    return all(_clause_fits(clause, has) for clause in required.split(","))


def _clause_fits(clause: str, has: tuple[int, int]) -> bool:
    match = _CLAUSE.fullmatch(clause)
    if match is None:
        return True
    want = (int(match[2]), int(match[3] or 0))
    # "==3" and "3" name a major version, so the minor one does not count.
    same = has == want if match[3] is not None else has[0] == want[0]
    return {
        None: same,
        "==": same,
        "!=": not same,
        ">=": has >= want,
        "<=": has <= want,
        ">": has > want,
        "<": has < want,
        "~=": has[0] == want[0] and has >= want,
    }[match[1]]


def _whole(value: Any) -> int:
    return int(value or 0)
