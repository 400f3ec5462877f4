"""The rows that a single-machine system begins with: its user, project, resource and agent."""

from __future__ import annotations

import getpass
import os
import re
import socket

from airavata_scheduler.backends.private_files import write_whole
from airavata_scheduler.backends.stores import ensure_default_storage
from airavata_scheduler.client.profile import Profile, default_folder
from airavata_scheduler.commands.local_addresses import Addresses
from airavata_scheduler.commands.local_children import COMPUTE_NAME, environment
from airavata_scheduler.commands.local_home import LocalHome
from airavata_scheduler.functions import grants
from airavata_scheduler.functions.enrolment import new_enrolment_token
from airavata_scheduler.functions.logins import open_login
from airavata_scheduler.models import database, migrations
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import (
    Agent,
    AgentSession,
    ComputeResource,
    Project,
    ProjectMember,
    User,
)

PROJECT_NAME = "default"
LOGIN_TTL_S = 10 * 365 * 86_400.0  # the profile lives as long as the state folder
SUSPECT_MS = 90_000


def prepare(home: LocalHome, addresses: Addresses) -> None:
    """Bring the database up to date, make what is missing, and write the user's profile.

    Run before the children start; running it again changes nothing but the profile's tokens.
    """
    configuration = Configuration.read(environment(home, addresses), dotenv=None)
    database.connect(configuration.database_url)
    migrations.upgrade()
    ensure_default_storage(configuration)
    with database.transaction():
        user = _ensure_user()
        _ensure_project(user)
        compute = _ensure_compute(user)
    if not Agent.select().where(Agent.compute_id == compute.id, Agent.state == "active").exists():
        token = new_enrolment_token(compute.id, created_by=user.id).token
        write_whole(home.token_file, token.encode(), 0o600)
    tokens = open_login(
        configuration,
        user.id,
        ttl_s=LOGIN_TTL_S,
        user_agent="airavata-scheduler local",
        address=addresses.host,
    )
    Profile(folder=default_folder(os.environ)).save(
        tokens=tokens.as_json(), server=addresses.url, project=PROJECT_NAME
    )


def agent_is_online() -> bool:
    """Whether an agent of this machine's resource has a session that is alive."""
    with database.connected():
        alive_since = database.now_ms() - SUSPECT_MS
        return bool(
            AgentSession.select()
            .join(ComputeResource, on=(ComputeResource.id == AgentSession.compute_id))
            .where(
                ComputeResource.name == COMPUTE_NAME,
                AgentSession.ended_at.is_null(),
                AgentSession.heartbeat_at >= alive_since,
            )
            .exists()
        )


def _ensure_user() -> User:
    """The person at this machine: the first administrator, without a password.

    Whoever can read the state folder is this user already; a password can be set with a link
    from `airavata-scheduler admin password-link`.
    """
    existing = User.get_or_none(User.is_admin)
    if existing is not None:
        assert isinstance(existing, User)
        return existing
    login_name = re.sub(r"[^a-z0-9._-]", "-", getpass.getuser().lower()) or "user"
    now = database.now_ms()
    user = User.create(id=new_id(), name=login_name, is_admin=True, created_at=now, updated_at=now)
    grants.user_changed(user.id)
    return user


def _ensure_project(user: User) -> None:
    if Project.select().where(Project.name == PROJECT_NAME).exists():
        return
    now = database.now_ms()
    project = Project.create(
        id=new_id(),
        name=PROJECT_NAME,
        description="Where your experiments go unless you say otherwise.",
        owner_id=user.id,
        created_at=now,
        updated_at=now,
    )
    ProjectMember.insert(
        project_id=project.id, user_id=user.id, role="owner", created_at=now
    ).execute()
    grants.project_made(project.id, user.id)


def _ensure_compute(user: User) -> ComputeResource:
    existing = ComputeResource.get_or_none(ComputeResource.name == COMPUTE_NAME)
    if existing is not None:
        assert isinstance(existing, ComputeResource)
        return existing
    now = database.now_ms()
    compute = ComputeResource.create(
        id=new_id(),
        name=COMPUTE_NAME,
        kind="BARE_METAL",
        description=f"This machine, {socket.gethostname()}.",
        owner_id=user.id,
        limits={},
        timers={},
        created_at=now,
        updated_at=now,
    )
    grants.resource_changed(("compute_resource", compute.id), user.id, None)
    return compute
