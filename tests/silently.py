"""Changes of grants by a process that died before it relayed them: rows and outbox, no more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from airavata_scheduler.functions import grants
from airavata_scheduler.models import outbox
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.outbox import Named
from airavata_scheduler.models.tables import GroupMember, ProjectMember


@contextmanager
def unrelayed() -> Iterator[None]:
    """A transaction whose process dies after its commit."""
    with transaction():
        yield
    outbox.take_written()


def join_project(project_id: str, user_id: str, role: str = "viewer") -> None:
    """Give a user a role in a project."""
    with unrelayed():
        ProjectMember.insert(
            project_id=project_id, user_id=user_id, role=role, created_at=now_ms()
        ).execute()
        grants.project_role_changed(project_id, ("user", user_id), after=role)


def leave_project(project_id: str, user_id: str, role: str = "viewer") -> None:
    """Take a user's role away."""
    with unrelayed():
        ProjectMember.delete().where(
            (ProjectMember.project_id == project_id) & (ProjectMember.user_id == user_id)
        ).execute()
        grants.project_role_changed(project_id, ("user", user_id), before=role)


def leave_group(group_id: str, subject: Named, role: str = "member") -> None:
    """Take a user or a group out of a group."""
    kind, subject_id = subject
    with unrelayed():
        GroupMember.delete().where(
            (GroupMember.group_id == group_id) & (GroupMember.subject_id == subject_id)
        ).execute()
        grants.withdraw(("group", group_id), role, subject)
        if kind == "user":
            grants.withdraw(subject, "group", ("group_object", group_id))


def another_process(
    config: Configuration, *words: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`airavata-scheduler WORDS` as its own process, on the same database and SpiceDB."""
    return subprocess.run(
        [sys.executable, "-m", "airavata_scheduler.commands.main", *words],
        env=env or environment(config),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def environment(config: Configuration) -> dict[str, str]:
    """The environment of another process of the same deployment."""
    return os.environ | {
        "DATABASE_URL": config.database_url,
        "SPICEDB_ENDPOINT": config.spicedb_endpoint,
        "SPICEDB_TOKEN": config.spicedb_token,
        "SPICEDB_INSECURE": "true",
        "JWT_SECRET_KEY": "0123456789abcdef0123456789abcdef",
    }
