"""The tables of docs/states.md, made from models/states.py: meanings and transitions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from airavata_scheduler.models.states import (
    EXPERIMENT_TRANSITIONS,
    TASK_TRANSITIONS,
    ExperimentState,
    NodeState,
    Outcome,
    TaskState,
)

_MEMBER = re.compile(r"^    ([A-Z]+) = \S+  # (.+)$", re.MULTILINE)
State = TypeVar("State", bound=Enum)


def tables() -> dict[str, str]:
    """Each table as Markdown, by the heading under which it stands."""
    return {
        "Task": _with_transitions(TaskState, TASK_TRANSITIONS),
        "Experiment": _with_transitions(ExperimentState, EXPERIMENT_TRANSITIONS),
        "Node": _plain(NodeState),
        "Outcome of an attempt": _plain(Outcome),
    }


def _meanings(states: type[Enum]) -> dict[str, str]:
    found = dict(_MEMBER.findall(inspect.getsource(states)))
    assert list(found) == [state.name for state in states], f"{states}: a state without a meaning"
    return found


def _with_transitions(states: type[State], transitions: Mapping[State, frozenset[State]]) -> str:
    lines = ["| state | meaning | may be followed by |", "|---|---|---|"]
    for state, meaning in zip(states, _meanings(states).values(), strict=True):
        after = [other for other in states if other in transitions[state]]
        names = ", ".join(f"`{other.name}`" for other in after)
        lines.append(f"| `{state.name}` | {meaning} | {names or 'nothing: it is final'} |")
    return "\n".join(lines)


def _plain(states: type[Enum]) -> str:
    lines = ["| state | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in _meanings(states).items()]
    return "\n".join(lines)
