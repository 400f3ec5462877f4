"""What is to be done: functions, experiments, the nodes of their graph, tasks.

Foreign keys are declared where rows are few. `tasks` and everything below it has none: checking one
takes a shared lock on the parent, and the parent of a task is the node whose counters the same
transactions update. Tasks are written by the named queries alone, which take `node_id` and
`experiment_id` from rows that they hold; and history can be moved out by partition.
"""

from __future__ import annotations

import peewee

from airavata_scheduler.models.fields import IdField, Index, JSONField, Table, references
from airavata_scheduler.models.states import ExperimentState, NodeState, TaskState


class Function(Table):
    """A named unit of work; what it does is in its versions."""

    id = IdField(primary_key=True)
    project_id = IdField()
    name = peewee.CharField(255)
    latest_version = peewee.IntegerField(default=1)
    owner_id = IdField()
    state = peewee.CharField(16, default="active")  # active | deleted
    version = peewee.IntegerField(default=1)
    created_at = peewee.BigIntegerField()
    updated_at = peewee.BigIntegerField()

    INDEXES = (Index(name="functions_project_name", columns=("project_id", "name"), unique=True),)
    REFERENCES = references(project_id="projects", owner_id="users")

    class Meta:
        table_name = "functions"


class FunctionVersion(Table):
    """One version of a function; never changed."""

    id = IdField(primary_key=True)
    function_id = IdField()
    number = peewee.IntegerField()
    spec = JSONField()
    created_by = IdField()
    created_at = peewee.BigIntegerField()

    INDEXES = (
        Index(
            name="function_versions_function_number",
            columns=("function_id", "number"),
            unique=True,
        ),
    )
    REFERENCES = references(function_id="functions", created_by="users")

    class Meta:
        table_name = "function_versions"


class Experiment(Table):
    """A set of tasks. Kind `calls` is the one that holds a user's calls of a function version."""

    id = IdField(primary_key=True)
    project_id = IdField()
    owner_id = IdField()
    kind = peewee.CharField(16, default="experiment")  # experiment | calls
    function_version_id = IdField(null=True)
    name = peewee.CharField(255)
    state = peewee.CharField(16, default=ExperimentState.CREATED.value)
    spec = JSONField()  # the normalised document
    source = peewee.TextField(default="")  # as the user wrote it
    plan = JSONField(null=True)  # what `explain` shows
    total = peewee.BigIntegerField(default=0)
    on_failure = peewee.CharField(16, default="continue")
    compute = JSONField()  # ids of the compute resources that may run it
    storage_id = IdField(null=True)
    priority = peewee.SmallIntegerField(default=0)
    derived_from = IdField(null=True)
    cancel_requested_at = peewee.BigIntegerField(null=True)
    error = peewee.TextField(null=True)
    version = peewee.IntegerField(default=1)
    created_at = peewee.BigIntegerField()
    submitted_at = peewee.BigIntegerField(null=True)
    started_at = peewee.BigIntegerField(null=True)
    finished_at = peewee.BigIntegerField(null=True)
    updated_at = peewee.BigIntegerField()

    INDEXES = (
        Index(name="experiments_project_created", columns=("project_id", "created_at")),
        Index(
            name="experiments_function_owner",
            columns=("function_version_id", "owner_id"),
            unique=True,  # rows of the other kind have no function version, and NULLs never collide
        ),
        Index(name="experiments_state", columns=("state", "id")),
    )
    REFERENCES = references(
        project_id="projects",
        owner_id="users",
        function_version_id="function_versions",
        storage_id="storage_resources",
    )

    class Meta:
        table_name = "experiments"


class Node(Table):
    """One node of an experiment's graph, with the counters of its tasks.

    The sum of the counters is the rows of the newest generation and the instances that ended
    without one; `total` less that sum is not yet expanded.
    """

    id = IdField(primary_key=True)
    experiment_id = IdField()
    name = peewee.CharField(255)
    position = peewee.IntegerField()
    state = peewee.CharField(16, default=NodeState.WAITING.value)
    spec = JSONField()
    total = peewee.BigIntegerField(default=0)
    next_index = peewee.BigIntegerField(default=0)  # the cursor of the expansion
    selection = JSONField(null=True)  # the instances to run, where not all (retry, derive)
    generation = peewee.SmallIntegerField(default=0)
    pending = peewee.BigIntegerField(default=0)
    queued = peewee.BigIntegerField(default=0)
    leased = peewee.BigIntegerField(default=0)
    running = peewee.BigIntegerField(default=0)
    finalizing = peewee.BigIntegerField(default=0)
    completed = peewee.BigIntegerField(default=0)
    failed = peewee.BigIntegerField(default=0)
    cancelled = peewee.BigIntegerField(default=0)
    skipped = peewee.BigIntegerField(default=0)
    opened_at = peewee.BigIntegerField(null=True)
    finished_at = peewee.BigIntegerField(null=True)

    INDEXES = (Index(name="nodes_experiment_name", columns=("experiment_id", "name"), unique=True),)
    REFERENCES = references(experiment_id="experiments")

    class Meta:
        table_name = "nodes"


class Task(Table):
    """One instance of a node. `attempt`, `lease_id` and the session's agent are the fence."""

    id = IdField(primary_key=True)
    experiment_id = IdField()
    node_id = IdField()
    idx = peewee.BigIntegerField()  # the instance, from 0
    generation = peewee.SmallIntegerField(default=0)
    compute_id = IdField(null=True)
    state = peewee.SmallIntegerField(default=TaskState.PENDING.value)
    priority = peewee.SmallIntegerField(default=0)
    available_at = peewee.BigIntegerField(default=0)
    cpu = peewee.SmallIntegerField(default=1)
    ram_mb = peewee.IntegerField(default=0)
    gpu = peewee.SmallIntegerField(default=0)
    attempt = peewee.SmallIntegerField(default=0)
    failures = peewee.SmallIntegerField(default=0)
    infra_failures = peewee.SmallIntegerField(default=0)
    refusals = peewee.SmallIntegerField(default=0)
    lease_id = peewee.CharField(32, null=True)
    agent_id = IdField(null=True)
    session_id = IdField(null=True)
    claim_id = peewee.CharField(64, null=True)
    gate_open = peewee.BooleanField(default=False)
    pinned = peewee.BooleanField(default=False)  # its caller named where it runs: never moved
    leased_at = peewee.BigIntegerField(null=True)
    started_at = peewee.BigIntegerField(null=True)
    finished_at = peewee.BigIntegerField(null=True)
    cancel_requested_at = peewee.BigIntegerField(null=True)
    arguments = peewee.TextField(null=True)  # JSON, for calls only
    reason = peewee.TextField(null=True)
    created_at = peewee.BigIntegerField()

    INDEXES = (
        # Only QUEUED rows (state 1): a task that moves on leaves no entry behind. A claim must say
        # `state = 1` literally: SQLite does not match a parameter with a partial index.
        Index(
            name="tasks_claim",
            columns=("compute_id", "priority DESC", "available_at"),
            where=f"state = {TaskState.QUEUED.value}",
            mysql_columns=("compute_id", "state", "priority DESC", "available_at"),
        ),
        Index(
            name="tasks_session_state",
            columns=("session_id", "state"),
            where="session_id IS NOT NULL",
        ),
        Index(name="tasks_experiment_state", columns=("experiment_id", "state", "id")),
        Index(
            name="tasks_node_idx_generation",
            columns=("node_id", "idx", "generation"),
            unique=True,
        ),
    )

    class Meta:
        table_name = "tasks"
