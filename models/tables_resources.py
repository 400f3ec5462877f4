"""Where tasks run and where data lies: resources, agents, their sessions and tokens."""

from __future__ import annotations

import peewee

from airavata_scheduler.models.fields import IdField, Index, JSONField, Table, references


class ComputeResource(Table):
    """A place to run. Without a project everyone may use it."""

    id = IdField(primary_key=True)
    name = peewee.CharField(255, unique=True)
    kind = peewee.CharField(16)  # SLURM | KUBERNETES | BARE_METAL
    description = peewee.TextField(default="")
    owner_id = IdField()
    project_id = IdField(null=True)
    limits = JSONField()  # {max_cpu, max_ram_gb, max_gpu, max_time_s}
    timers = JSONField()  # {heartbeat_s, suspect_after_s, requeue_after_s, offer_ack_s}
    price_per_core_hour = peewee.DoubleField(default=0)
    endpoint = peewee.CharField(1024, default="")  # ssh://host:port or https://…; empty: none
    state = peewee.CharField(16, default="active")  # active | disabled
    version = peewee.IntegerField(default=1)
    created_at = peewee.BigIntegerField()
    updated_at = peewee.BigIntegerField()

    REFERENCES = references(owner_id="users", project_id="projects")

    class Meta:
        table_name = "compute_resources"


class StorageResource(Table):
    """A place for data. Without a project everyone may use it."""

    id = IdField(primary_key=True)
    name = peewee.CharField(255, unique=True)
    kind = peewee.CharField(16)  # S3 | SFTP | NFS
    description = peewee.TextField(default="")
    owner_id = IdField(null=True)  # NULL: the default one, made before there is any user
    project_id = IdField(null=True)
    location = JSONField()  # {path} for NFS
    is_default = peewee.BooleanField(default=False)
    state = peewee.CharField(16, default="active")  # active | disabled
    version = peewee.IntegerField(default=1)
    created_at = peewee.BigIntegerField()
    updated_at = peewee.BigIntegerField()

    REFERENCES = references(owner_id="users", project_id="projects")

    class Meta:
        table_name = "storage_resources"


class Agent(Table):
    """An agent as enrolled: who it is, not whether it is there (that is its session)."""

    id = IdField(primary_key=True)
    compute_id = IdField()
    name = peewee.CharField(255)
    state = peewee.CharField(16, default="pending")  # pending | active | draining | revoked
    secret_hash = peewee.CharField(64)
    next_secret_hash = peewee.CharField(64, null=True)  # becomes current on its first use
    secret_set_at = peewee.BigIntegerField()
    token_version = peewee.IntegerField(default=1)
    approval_code = peewee.CharField(32, null=True)
    host = JSONField()  # {hostname, user, os, python}
    version_text = peewee.CharField(64, default="")
    capabilities = JSONField()
    policy = JSONField()
    session_id = IdField(null=True)  # the newest session
    swaps = peewee.IntegerField(default=0)  # sessions that took over from one still alive
    created_at = peewee.BigIntegerField()
    enrolled_at = peewee.BigIntegerField(null=True)
    seen_at = peewee.BigIntegerField(null=True)

    INDEXES = (Index(name="agents_compute_id_name", columns=("compute_id", "name"), unique=True),)
    REFERENCES = references(compute_id="compute_resources")

    class Meta:
        table_name = "agents"


class AgentSession(Table):
    """One start of an agent. A heartbeat changes this one row, whatever the number of tasks."""

    id = IdField(primary_key=True)
    agent_id = IdField()
    compute_id = IdField()
    boot_id = peewee.CharField(128, default="")
    state_folder_id = peewee.CharField(128, default="")
    started_at = peewee.BigIntegerField()
    heartbeat_at = peewee.BigIntegerField()
    ended_at = peewee.BigIntegerField(null=True)
    end_reason = peewee.CharField(64, null=True)
    last_claim_seq = peewee.BigIntegerField(default=0)
    held = peewee.IntegerField(default=0)  # leases it said that it holds
    mode = peewee.CharField(16, default="normal")  # normal | safe | draining
    free = JSONField()
    heartbeat_seq = peewee.BigIntegerField(default=0)

    INDEXES = (
        Index(name="agent_sessions_agent_id", columns=("agent_id",)),
        # For the sweep (silent sessions) and the page (who is there), per compute resource. The
        # time of the heartbeat is not in it: a heartbeat then rewrites no index entry.
        Index(
            name="agent_sessions_alive",
            columns=("compute_id",),
            where="ended_at IS NULL",
            mysql_columns=("ended_at", "compute_id"),
        ),
    )
    REFERENCES = references(agent_id="agents", compute_id="compute_resources")

    class Meta:
        table_name = "agent_sessions"


class Claim(Table):
    """A claim that was answered, so that the same claim again gets the same leases."""

    claim_id = peewee.CharField(64, primary_key=True)
    agent_id = IdField()
    session_id = IdField()
    granted = peewee.IntegerField()
    created_at = peewee.BigIntegerField()

    INDEXES = (Index(name="claims_created_at", columns=("created_at",)),)

    class Meta:
        table_name = "claims"


class EnrolmentToken(Table):
    """A single-use token that lets one agent enrol at one compute resource."""

    token_hash = peewee.CharField(64, primary_key=True)
    compute_id = IdField()
    agent_name = peewee.CharField(255, null=True)
    created_by = IdField()
    created_at = peewee.BigIntegerField()
    expires_at = peewee.BigIntegerField()
    used_at = peewee.BigIntegerField(null=True)
    agent_id = IdField(null=True)
    secret_hash = peewee.CharField(64, null=True)  # the same secret again gets the same agent

    REFERENCES = references(compute_id="compute_resources", created_by="users")

    class Meta:
        table_name = "enrolment_tokens"
