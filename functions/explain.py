"""Why is it not running? One line a cause, the most decisive first, each with the next step.

Everything is read from rows that are few: the experiment, its nodes with their counters, the
compute resources and their agents. No answer ever counts tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airavata_scheduler.functions import experiment_documents, sites, task_documents
from airavata_scheduler.functions.selected import dict_one, dict_rows, tuple_rows
from airavata_scheduler.functions.sites import Reason, ago
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.node_facts import NodeFacts, node_facts
from airavata_scheduler.models.states import ExperimentState, NodeState, TaskState
from airavata_scheduler.models.tables import Deployment, Experiment, Node, Task

TICK = "sweep_tick"  # the row of `deployment` that the daemon touches every five seconds
TICK_LATE_MS = 30_000
OTHERS_READ = 1000  # other experiments that are looked at for the place in the queue


def experiment(experiment_id: str) -> dict[str, Any]:
    """Why an experiment is where it is: `{state, reasons: [{node, code, detail, hint}], plan}`.

    `node` is null where a reason holds for the whole experiment.
    """
    row = dict_one(Experiment.select().where(Experiment.id == experiment_id))
    nodes = experiment_documents.node_rows(experiment_id)
    places = sites.usable(row["compute"], row["project_id"]) if _is_moving(row) else []
    reasons = [{"node": None, **item.shown()} for item in _of_experiment(row, nodes)]
    for node in nodes:
        found = _of_node(row, node, nodes, places)
        reasons += [{"node": node["name"], **item.shown()} for item in found]
    return {"state": row["state"], "reasons": reasons, "plan": row["plan"]}


def task(row: Mapping[str, Any]) -> dict[str, Any]:
    """Why a task is where it is: `{state, reasons}`. `row` is its row of `tasks`."""
    state = TaskState(row["state"])
    if state.is_terminal:
        reasons = [_ended_task(row, state)]
    elif state.is_leased:
        reasons = [_leased_task(row, state)]
    else:
        reasons = _waiting_task(row)
    return {"state": state.name, "reasons": [item.shown() for item in reasons]}


def _is_moving(row: Mapping[str, Any]) -> bool:
    return row["state"] in (ExperimentState.RUNNING, ExperimentState.PLANNING)


def _of_experiment(row: Mapping[str, Any], nodes: list[dict[str, Any]]) -> list[Reason]:
    """What holds for the whole experiment."""
    name, state = row["name"], ExperimentState(row["state"])
    if state is ExperimentState.CREATED:
        return [
            Reason(
                code="not_submitted",
                detail="It is stored and was never submitted.",
                hint=f"POST /api/v1/experiments/{row['id']}/submit",
            )
        ]
    if state is ExperimentState.PAUSED:
        return [
            Reason(
                code="paused",
                detail="It is paused: nothing new starts, what runs goes on.",
                hint=f"airavata experiment resume {name}",
            )
        ]
    if state is ExperimentState.CANCELLED:
        return [Reason(code="cancelled", detail="It was cancelled.")]
    if state in (ExperimentState.COMPLETED, ExperimentState.FAILED):
        return [_ended_experiment(row, nodes)]
    late = _daemon_is_late()
    reasons = [late] if late else []
    if state is ExperimentState.PLANNING:
        waited = ago(now_ms() - (row["submitted_at"] or row["created_at"]))
        reasons.append(Reason(code="planning", detail=f"It waits for the planner since {waited}."))
    return reasons


def _ended_experiment(row: Mapping[str, Any], nodes: list[dict[str, Any]]) -> Reason:
    if row["error"]:
        return Reason(code="error", detail=row["error"])
    failed = sum(node["failed"] for node in nodes)
    if not failed:
        return Reason(code="completed", detail="Every instance completed.")
    said = _first_failure(row["id"])
    return Reason(
        code="tasks_failed",
        detail=f"{failed} of {row['total']} instances failed; one of them: {said}",
        hint=f"airavata experiment tasks {row['name']} --state failed",
    )


def _first_failure(experiment_id: str) -> str:
    """One failure in a sentence, read along (experiment_id, state, id)."""
    rows = dict_rows(
        Task.select()
        .where(
            (Task.experiment_id == experiment_id)
            & (Task.state == TaskState.FAILED.value)
            & task_documents.newest()
        )
        .order_by(Task.id)
        .limit(1)
    )
    if not rows:
        return "its tasks are being retried"
    shown = task_documents.documents(rows)[0]
    failure = shown["failure"] or {}
    return f"{shown['name']}: {failure.get('message') or failure.get('code') or shown['reason']}"


def _of_node(
    row: Mapping[str, Any],
    node: Mapping[str, Any],
    nodes: list[dict[str, Any]],
    places: list[sites.Site],
) -> list[Reason]:
    """What one node waits for; nothing where all its instances have ended."""
    if not _is_moving(row) or node["state"] == NodeState.FINISHED:
        return []
    facts = node_facts(node["id"])
    if node["state"] == NodeState.WAITING:
        return _barriers(facts, nodes)
    reasons = _parents(facts, node, nodes)
    if node["queued"]:
        reasons += _queued(row, node, facts, places)
    return reasons


def _barriers(facts: NodeFacts, nodes: list[dict[str, Any]]) -> list[Reason]:
    by_id = {node["id"]: node for node in nodes}
    return [
        Reason(code="barrier", detail=f"It waits for {_left(by_id[node_id])}.")
        for node_id in facts.after
        if by_id[node_id]["state"] != NodeState.FINISHED
    ]


def _parents(
    facts: NodeFacts, node: Mapping[str, Any], nodes: list[dict[str, Any]]
) -> list[Reason]:
    """An instance of a `foreach` task begins when its parent instance has completed."""
    counts = experiment_documents.with_waiting(node, node["total"])
    if facts.parent_id is None or not counts["waiting"]:
        return []
    parent = next(item for item in nodes if item["id"] == facts.parent_id)
    left = f"{counts['waiting']} of its {node['total']} instances"
    return [Reason(code="foreach", detail=f"{left} wait for {_left(parent)}.")]


def _left(node: Mapping[str, Any]) -> str:
    """`3 of 300 of simulate`: what is not ended of a node."""
    ended = sum(node[name] for name in experiment_documents.ENDED)
    return f"{node['total'] - ended} of {node['total']} of {node['name']}"


def _queued(
    row: Mapping[str, Any],
    node: Mapping[str, Any],
    facts: NodeFacts,
    places: list[sites.Site],
) -> list[Reason]:
    """Instances may be claimed: is anybody there to claim them, and who comes first?"""
    fitting = _places(facts, places)
    if not fitting:
        return [
            Reason(
                code="no_resource",
                detail="There is no compute resource that may run it.",
                hint="airavata resource compute list",
            )
        ]
    obstacles = [site.obstacle(facts.spec["resources"], facts.spec["features"]) for site in fitting]
    if all(obstacles):
        return [obstacle for obstacle in obstacles if obstacle]
    return [_place_in_queue(row, node, fitting)]


def _places(facts: NodeFacts, places: list[sites.Site]) -> list[sites.Site]:
    named = facts.spec.get("compute") or []
    return [site for site in places if not named or site.name in named or site.id in named]


def _place_in_queue(
    row: Mapping[str, Any], node: Mapping[str, Any], fitting: list[sites.Site]
) -> Reason:
    before, experiments = _before(row)
    held = sum(agent.held for site in fitting for agent in site.present())
    names = ", ".join(site.name for site in fitting)
    if before:
        detail = (
            f"{node['queued']} of its instances are queued on {names}; about {before} instances of "
            f"{experiments} other experiments come before."
        )
    else:
        detail = (
            f"{node['queued']} of its instances are queued on {names} and come next; its agents "
            f"hold {held} tasks now."
        )
    return Reason(code="queued", detail=detail)


def _before(row: Mapping[str, Any]) -> tuple[int, int]:
    """Queued instances of experiments that come before: higher priority, or earlier submitted."""
    ahead = (Experiment.priority > row["priority"]) | (
        (Experiment.priority == row["priority"]) & (Experiment.submitted_at < row["submitted_at"])
    )
    others = tuple_rows(
        Node.select(Experiment.id, Experiment.compute, Node.queued)
        .join(Experiment, on=(Experiment.id == Node.experiment_id))
        .where(
            (Experiment.state == ExperimentState.RUNNING.value)
            & (Experiment.id != row["id"])
            & (Node.queued > 0)
            & ahead
        )
        .limit(OTHERS_READ)
    )
    mine = set(row["compute"])
    sharing = [
        (experiment_id, queued)
        for experiment_id, compute, queued in others
        if not mine or not compute or mine & set(compute)
    ]
    return sum(queued for _, queued in sharing), len({identity for identity, _ in sharing})


def _daemon_is_late() -> Reason | None:
    at = Deployment.select(Deployment.at).where(Deployment.name == TICK).scalar()
    late_ms = None if at is None else now_ms() - at
    if late_ms is not None and late_ms <= TICK_LATE_MS:
        return None
    since = "yet" if late_ms is None else f"since {ago(late_ms)}"
    return Reason(
        code="no_daemon",
        detail=f"No background process of the scheduler has been at work {since}.",
        hint="Its operator starts it: airavata-scheduler daemon",
    )


def _ended_task(row: Mapping[str, Any], state: TaskState) -> Reason:
    shown = task_documents.documents([row])[0]
    failure = shown["failure"]
    if failure is not None:
        return Reason(
            code=failure["code"] or "failed",
            detail=failure["message"] or row["reason"] or "It failed.",
            hint=f"airavata task logs {row['id']}",
        )
    return Reason(code=state.name.lower(), detail=row["reason"] or f"It is {state.name}.")


def _leased_task(row: Mapping[str, Any], state: TaskState) -> Reason:
    shown = task_documents.documents([row])[0]
    where = f"the agent {shown['agent']} on {shown['compute']}"
    since = ago(now_ms() - (row["started_at"] or row["leased_at"] or now_ms()))
    if row["cancel_requested_at"]:
        return Reason(code="cancelling", detail=f"It is being stopped by {where}.")
    words = {
        TaskState.LEASED: f"It was given to {where} {since} ago and has not started yet.",
        TaskState.RUNNING: f"It runs on {where} since {since}.",
        TaskState.FINALIZING: f"It has ended; {where} sends its files.",
    }
    return Reason(code=state.name.lower(), detail=words[state])


def _waiting_task(row: Mapping[str, Any]) -> list[Reason]:
    """A task that may not be claimed yet, or that nobody has claimed."""
    parent = dict_one(Experiment.select().where(Experiment.id == row["experiment_id"]))
    nodes = experiment_documents.node_rows(row["experiment_id"])
    reasons = [] if parent["kind"] == "calls" else _of_experiment(parent, nodes)
    delay_ms = row["available_at"] - now_ms()
    if delay_ms > 0:
        reasons.append(
            Reason(
                code="backing_off",
                detail=f"It is tried again in {ago(delay_ms)}; before: {row['reason']}",
            )
        )
    if parent["state"] == ExperimentState.PAUSED:
        return reasons
    facts = node_facts(row["node_id"])
    node = next(item for item in nodes if item["id"] == row["node_id"])
    compute = [row["compute_id"]] if row["compute_id"] else parent["compute"]
    places = sites.usable(compute, parent["project_id"])
    if node["state"] == NodeState.WAITING:
        return reasons + _barriers(facts, nodes)
    return reasons + _queued({**parent, "compute": compute}, node, facts, places)
