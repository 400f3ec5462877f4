"""What happened and what came of it: attempts, artifacts, logs, blobs, events, statistics."""

from __future__ import annotations

import peewee

from airavata_scheduler.models.fields import IdField, Index, JSONField, Table


class Attempt(Table):
    """One try to run a task, ended."""

    lease_id = peewee.CharField(32, primary_key=True)
    task_id = IdField()
    experiment_id = IdField()
    number = peewee.SmallIntegerField()
    agent_id = IdField(null=True)
    session_id = IdField(null=True)
    compute_id = IdField(null=True)
    outcome = peewee.CharField(16)  # states.Outcome
    failure_kind = peewee.CharField(16, null=True)  # user | infrastructure | limit | policy
    failure_code = peewee.CharField(64, null=True)
    message = peewee.TextField(null=True)
    exit_code = peewee.IntegerField(null=True)
    signal = peewee.IntegerField(null=True)
    leased_at = peewee.BigIntegerField(null=True)
    started_at = peewee.BigIntegerField(null=True)
    finished_at = peewee.BigIntegerField(null=True)
    duration_ms = peewee.BigIntegerField(null=True)
    cpu_ms = peewee.BigIntegerField(null=True)
    max_rss_kb = peewee.BigIntegerField(null=True)
    result = peewee.TextField(null=True)  # JSON {encoding, data}, at most 64 KiB
    report_digest = peewee.CharField(64, null=True)

    INDEXES = (Index(name="attempts_task_id", columns=("task_id",)),)

    class Meta:
        table_name = "attempts"


class Artifact(Table):
    """One output file of one attempt; published by the report that was accepted."""

    id = IdField(primary_key=True)
    experiment_id = IdField()
    node_id = IdField()
    idx = peewee.BigIntegerField()
    task_id = IdField()
    lease_id = peewee.CharField(32)
    attempt = peewee.SmallIntegerField()
    output = peewee.CharField(255)
    path = peewee.TextField()
    size = peewee.BigIntegerField()
    sha256 = peewee.CharField(64)
    storage_id = IdField()
    storage_key = peewee.TextField()
    state = peewee.CharField(16, default="staged")  # staged | published
    created_at = peewee.BigIntegerField()
    published_at = peewee.BigIntegerField(null=True)

    INDEXES = (
        Index(name="artifacts_task_id", columns=("task_id",)),
        Index(name="artifacts_experiment_state", columns=("experiment_id", "state", "id")),
        Index(name="artifacts_node_idx", columns=("node_id", "idx")),
    )

    class Meta:
        table_name = "artifacts"


class Log(Table):
    """One stream of one attempt: short ones here, long ones in the storage."""

    lease_id = peewee.CharField(32)
    stream = peewee.CharField(16)  # stdout | stderr
    task_id = IdField()
    size = peewee.BigIntegerField(default=0)
    storage_key = peewee.TextField(null=True)
    inline = peewee.BlobField(null=True)  # at most 8 KiB
    truncated = peewee.BooleanField(default=False)

    INDEXES = (Index(name="logs_task_id", columns=("task_id",)),)

    class Meta:
        table_name = "logs"
        primary_key = peewee.CompositeKey("lease_id", "stream")


class Blob(Table):
    """Bytes by their SHA-256 within a project: bundles, arguments, inputs."""

    project_id = IdField()
    sha256 = peewee.CharField(64)
    size = peewee.BigIntegerField()
    storage_id = IdField()
    storage_key = peewee.TextField()
    created_by = IdField(null=True)
    created_at = peewee.BigIntegerField()

    class Meta:
        table_name = "blobs"
        primary_key = peewee.CompositeKey("project_id", "sha256")


class Event(Table):
    """A line of an experiment's timeline."""

    id = IdField(primary_key=True)
    experiment_id = IdField()
    at = peewee.BigIntegerField()
    kind = peewee.CharField(64)
    detail = JSONField()

    INDEXES = (Index(name="events_experiment_id", columns=("experiment_id", "id")),)

    class Meta:
        table_name = "events"


class TaskStat(Table):
    """Ended tasks by resource, outcome and duration class; counted up by each batch of reports."""

    compute_id = IdField()
    outcome = peewee.CharField(16)
    le_ms = peewee.BigIntegerField()  # upper bound of the duration class
    count = peewee.BigIntegerField(default=0)
    sum_ms = peewee.BigIntegerField(default=0)

    class Meta:
        table_name = "task_stats"
        primary_key = peewee.CompositeKey("compute_id", "outcome", "le_ms")


class Deployment(Table):
    """Named values of the whole deployment (epoch, sweep tick), and rows to lock by name."""

    name = peewee.CharField(64, primary_key=True)
    value = peewee.TextField()
    at = peewee.BigIntegerField()

    class Meta:
        table_name = "deployment"


class SchemaVersion(Table):
    """A migration that was applied."""

    version = peewee.IntegerField(primary_key=True)
    name = peewee.CharField(64)
    applied_at = peewee.BigIntegerField()

    class Meta:
        table_name = "schema_version"
