"""All tables by name, in the order in which they can be created."""

from __future__ import annotations

from airavata_scheduler.models.fields import Table
from airavata_scheduler.models.tables_people import (
    AuditEntry,
    IdempotencyKey,
    Login,
    LoginLink,
    OutboxEntry,
    Project,
    ProjectMember,
    User,
)
from airavata_scheduler.models.tables_record import (
    Artifact,
    Attempt,
    Blob,
    Deployment,
    Event,
    Log,
    SchemaVersion,
    TaskStat,
)
from airavata_scheduler.models.tables_resources import (
    Agent,
    AgentSession,
    Claim,
    ComputeResource,
    EnrolmentToken,
    StorageResource,
)
from airavata_scheduler.models.tables_work import (
    Experiment,
    Function,
    FunctionVersion,
    Node,
    Task,
)

__all__ = [
    "TABLES",
    "Agent",
    "AgentSession",
    "Artifact",
    "Attempt",
    "AuditEntry",
    "Blob",
    "Claim",
    "ComputeResource",
    "Deployment",
    "EnrolmentToken",
    "Event",
    "Experiment",
    "Function",
    "FunctionVersion",
    "IdempotencyKey",
    "Log",
    "Login",
    "LoginLink",
    "Node",
    "OutboxEntry",
    "Project",
    "ProjectMember",
    "SchemaVersion",
    "StorageResource",
    "Task",
    "TaskStat",
    "User",
]

# A table stands behind those that it references.
TABLES: tuple[type[Table], ...] = (
    SchemaVersion,
    Deployment,
    User,
    LoginLink,
    Login,
    Project,
    ProjectMember,
    IdempotencyKey,
    OutboxEntry,
    AuditEntry,
    ComputeResource,
    StorageResource,
    Agent,
    AgentSession,
    Claim,
    EnrolmentToken,
    Function,
    FunctionVersion,
    Experiment,
    Node,
    Task,
    Attempt,
    Artifact,
    Log,
    Blob,
    Event,
    TaskStat,
)
