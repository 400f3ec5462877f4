"""Experiments in motion. The public face of this part of the room.

- `flow_create` stores, `flow_plan` chooses where and opens, `flow_expand` makes rows by windows,
- `flow_finish` passes barriers and ends, `flow_control` and `flow_retry` are the user's,
- `flow_calls` queues calls of functions, `flow_due` finds what is due from SQL alone.

Each function is idempotent, does bounded work, and returns what to tell others after the commit.
"""

from airavata_scheduler.models.flow_calls import Calls, add_calls
from airavata_scheduler.models.flow_control import cancel, cancel_task, pause, resume
from airavata_scheduler.models.flow_create import Selection, create_experiment, submit
from airavata_scheduler.models.flow_due import due_work, tasks_without_timer
from airavata_scheduler.models.flow_expand import expand
from airavata_scheduler.models.flow_finish import finish
from airavata_scheduler.models.flow_plan import plan
from airavata_scheduler.models.flow_retry import retry
from airavata_scheduler.models.node_facts import NodeFacts, node_facts

__all__ = [
    "Calls",
    "NodeFacts",
    "Selection",
    "add_calls",
    "cancel",
    "cancel_task",
    "create_experiment",
    "due_work",
    "expand",
    "finish",
    "node_facts",
    "pause",
    "plan",
    "resume",
    "retry",
    "submit",
    "tasks_without_timer",
]
