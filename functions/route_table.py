"""The one table: route → who may call it → object kind, permission, and where its name stands.

A new route gets its row here. `access.py` reads the table; a test walks it.

A place is `path:x`, `query:x` or `body:x`; `?` behind it: may be absent; `*`: may be absent, and is
a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from airavata_scheduler.functions.naming import Kind
from airavata_scheduler.functions.permissions import Permission


@dataclass(frozen=True, kw_only=True)
class Check:
    """One permission on one object (or list of objects) that the request names."""

    kind: Kind
    permission: Permission
    place: str
    by_id: bool = False  # the list holds full ids: one query for all


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Who may call a route, and what must hold.

    `anyone` needs no token; `agent` is checked by the agents' blueprint; `user` needs an access
    token, and every check. A `user` rule without checks concerns the caller's own things, or a list
    which the view narrows by `permissions.visible`.
    """

    who: Literal["anyone", "user", "agent"] = "user"
    checks: tuple[Check, ...] = ()


def _on(kind: Kind, permission: Permission, place: str = "", *, by_id: bool = False) -> Check:
    return Check(kind=kind, permission=permission, place=place, by_id=by_id)


def _user(*checks: Check) -> Rule:
    return Rule(checks=checks)


ANYONE = Rule(who="anyone")
AGENT = Rule(who="agent")
USER = Rule()  # the caller's own things, or a list of what the caller may see
SYSTEM_ADMIN = _user(_on("system", "manage"))

_USER_READ = _user(_on("user", "read", "path:user"))
_USER_MANAGE = _user(_on("user", "manage", "path:user"))
_GROUP_READ = _user(_on("group", "read", "path:group"))
_GROUP_MANAGE = _user(_on("group", "manage", "path:group"))
_PROJECT_READ = _user(_on("project", "read", "path:project"))
_PROJECT_CREATE = _user(_on("project", "create", "path:project"))
_PROJECT_MANAGE = _user(_on("project", "manage", "path:project"))
_COMPUTE_READ = _user(_on("compute_resource", "read", "path:resource"))
_COMPUTE_OPERATE = _user(_on("compute_resource", "operate", "path:resource"))
_COMPUTE_MANAGE = _user(_on("compute_resource", "manage", "path:resource"))
_STORAGE_READ = _user(_on("storage_resource", "read", "path:resource"))
_STORAGE_MANAGE = _user(_on("storage_resource", "manage", "path:resource"))
_AGENT_READ = _user(_on("agent", "read", "path:agent"))
_AGENT_OPERATE = _user(_on("agent", "operate", "path:agent"))
_AGENT_MANAGE = _user(_on("agent", "manage", "path:agent"))
_FUNCTION_READ = _user(_on("function", "read", "path:function"))
_FUNCTION_CALL = _user(
    _on("function", "call", "path:function"), _on("compute_resource", "use", "body:compute?")
)
_EXPERIMENT_READ = _user(_on("experiment", "read", "path:experiment"))
_EXPERIMENT_OPERATE = _user(_on("experiment", "operate", "path:experiment"))
_TASK_READ = _user(_on("task", "read", "path:task"))
_ARTIFACT_READ = _user(_on("artifact", "read", "path:artifact"))

_CREDENTIAL_READ = _user(_on("credential", "read", "path:credential"))
_CREDENTIAL_WRITE = _user(_on("credential", "write", "path:credential"))
_CREDENTIAL_SHARE = _user(_on("credential", "share", "path:credential"))

_API: Mapping[str, Rule] = {
    # Who is calling
    "POST /auth/bootstrap": ANYONE,
    "POST /auth/password-link": ANYONE,
    "POST /auth/login": ANYONE,
    "POST /auth/refresh": ANYONE,
    "GET /auth/oidc/start": ANYONE,
    "GET /auth/oidc/callback": ANYONE,
    "POST /auth/oidc/token": ANYONE,
    "POST /auth/oidc/link": USER,
    "GET /auth/oidc/identities": USER,
    "POST /auth/oidc/identities": USER,
    "DELETE /auth/oidc/identities/{identity}": USER,
    "POST /auth/logout": USER,
    "GET /auth/status": USER,
    "GET /auth/sessions": USER,
    "DELETE /auth/sessions": USER,
    "DELETE /auth/sessions/{session}": USER,
    # Users
    "GET /users/me": USER,
    "PATCH /users/me": USER,
    "POST /users/me/password": USER,
    "GET /users/me/totp": USER,
    "POST /users/me/totp": USER,
    "POST /users/me/totp/confirm": USER,
    "DELETE /users/me/totp": USER,
    "GET /users/me/tokens": USER,
    "POST /users/me/tokens": USER,
    "DELETE /users/me/tokens/{token}": USER,
    "GET /users/me/projects": USER,
    "GET /users/me/groups": USER,
    "POST /users": SYSTEM_ADMIN,
    "GET /users": USER,
    "GET /users/{user}": _USER_READ,
    "PATCH /users/{user}": _USER_MANAGE,
    "DELETE /users/{user}": _USER_MANAGE,
    "POST /users/{user}/password-link": _USER_MANAGE,
    "DELETE /users/{user}/totp": _USER_MANAGE,
    "GET /users/{user}/tokens": _USER_MANAGE,
    "POST /users/{user}/tokens": _USER_MANAGE,
    "DELETE /users/{user}/tokens/{token}": _USER_MANAGE,
    # Groups. Naming a group inside another or in a project shows its people who is in it: `read`.
    "POST /groups": USER,
    "GET /groups": USER,
    "GET /groups/{group}": _GROUP_READ,
    "PATCH /groups/{group}": _GROUP_MANAGE,
    "DELETE /groups/{group}": _user(_on("group", "own", "path:group")),
    "GET /groups/{group}/members": _GROUP_READ,
    "POST /groups/{group}/members": _user(
        _on("group", "manage", "path:group"), _on("group", "read", "body:group?")
    ),
    "PATCH /groups/{group}/members/{user}": _GROUP_MANAGE,
    # As below with projects: leaving is everybody's right.
    "DELETE /groups/{group}/members/{user}": _GROUP_READ,
    "DELETE /groups/{group}/groups/{member}": _GROUP_READ,
    # Projects
    "POST /projects": USER,
    "GET /projects": USER,
    "GET /projects/{project}": _PROJECT_READ,
    "PATCH /projects/{project}": _PROJECT_MANAGE,
    "DELETE /projects/{project}": _user(_on("project", "own", "path:project")),
    "GET /projects/{project}/members": _PROJECT_READ,
    "POST /projects/{project}/members": _user(
        _on("project", "manage", "path:project"), _on("group", "read", "body:group?")
    ),
    "PATCH /projects/{project}/members/{user}": _PROJECT_MANAGE,
    # Leaving is everybody's right; the view asks for `manage` where it is somebody else.
    "DELETE /projects/{project}/members/{user}": _PROJECT_READ,
    "PATCH /projects/{project}/groups/{group}": _PROJECT_MANAGE,
    "DELETE /projects/{project}/groups/{group}": _PROJECT_READ,
    # Resources: a shared one is a system admin's to create, one bound to a project its admins'.
    "POST /compute-resources": _user(_on("project", "manage", "body:project?")),
    "GET /compute-resources": USER,
    "GET /compute-resources/{resource}": _COMPUTE_READ,
    "PATCH /compute-resources/{resource}": _COMPUTE_MANAGE,
    "DELETE /compute-resources/{resource}": _COMPUTE_MANAGE,
    "GET /compute-resources/{resource}/status": _COMPUTE_READ,
    "POST /compute-resources/{resource}/enrolment-tokens": _COMPUTE_OPERATE,
    "GET /compute-resources/{resource}/shares": _COMPUTE_MANAGE,
    "POST /compute-resources/{resource}/shares": _COMPUTE_MANAGE,
    "DELETE /compute-resources/{resource}/shares": _COMPUTE_MANAGE,
    "POST /storage-resources": _user(
        _on("system", "manage"), _on("project", "read", "body:project?")
    ),
    "GET /storage-resources": USER,
    "GET /storage-resources/{resource}": _STORAGE_READ,
    "PATCH /storage-resources/{resource}": _STORAGE_MANAGE,
    "DELETE /storage-resources/{resource}": _STORAGE_MANAGE,
    "GET /storage-resources/{resource}/status": _STORAGE_READ,
    "GET /storage-resources/{resource}/shares": _STORAGE_MANAGE,
    "POST /storage-resources/{resource}/shares": _STORAGE_MANAGE,
    "DELETE /storage-resources/{resource}/shares": _STORAGE_MANAGE,
    # Agents, as their users see them
    "GET /agents": _user(_on("compute_resource", "read", "query:compute?")),
    "GET /agents/{agent}": _AGENT_READ,
    "POST /agents/{agent}/approve": _AGENT_OPERATE,
    "POST /agents/{agent}/drain": _AGENT_OPERATE,
    "POST /agents/{agent}/resume": _AGENT_OPERATE,
    "POST /agents/{agent}/revoke": _AGENT_MANAGE,
    # Credentials
    "POST /credentials": USER,
    "GET /credentials": USER,
    "GET /credentials/{credential}": _CREDENTIAL_READ,
    "PATCH /credentials/{credential}": _CREDENTIAL_WRITE,
    "DELETE /credentials/{credential}": _user(_on("credential", "delete", "path:credential")),
    "PUT /credentials/{credential}/value": _CREDENTIAL_WRITE,
    "POST /credentials/{credential}/rotate": _CREDENTIAL_WRITE,
    "POST /credentials/{credential}/reveal": _user(_on("credential", "reveal", "path:credential")),
    "GET /credentials/{credential}/versions": _CREDENTIAL_READ,
    "GET /credentials/{credential}/shares": _CREDENTIAL_SHARE,
    "POST /credentials/{credential}/shares": _CREDENTIAL_SHARE,
    "DELETE /credentials/{credential}/shares": _CREDENTIAL_SHARE,
    "GET /credentials/{credential}/bindings": _CREDENTIAL_READ,
    "POST /credentials/{credential}/bindings": _user(
        _on("credential", "write", "path:credential"),
        _on("compute_resource", "operate", "body:compute?"),
        _on("storage_resource", "operate", "body:storage?"),
    ),
    "DELETE /credentials/{credential}/bindings": _user(
        _on("credential", "write", "path:credential"),
        _on("compute_resource", "read", "query:compute?"),
        _on("storage_resource", "read", "query:storage?"),
    ),
    "POST /credentials/{credential}/test": _user(
        _on("credential", "use", "path:credential"),
        _on("compute_resource", "use", "body:compute?"),
        _on("storage_resource", "use", "body:storage?"),
    ),
    "GET /credential-resolution": _user(
        _on("compute_resource", "use", "query:compute?"),
        _on("storage_resource", "use", "query:storage?"),
    ),
    # Who may do what; the views ask about the objects that the query names
    "GET /permissions": USER,
    "GET /permissions/check": USER,
    "GET /permissions/explain": USER,
    # The audit
    "GET /audit": _user(_on("project", "manage", "query:project?")),
    "GET /audit/export": SYSTEM_ADMIN,
    # Functions and their calls
    "POST /functions": _user(_on("project", "create", "body:project")),
    "GET /functions": _user(_on("project", "read", "query:project?")),
    "GET /functions/{function}": _FUNCTION_READ,
    "GET /functions/{function}/versions": _FUNCTION_READ,
    "POST /functions/{function}/calls": _FUNCTION_CALL,
    "POST /functions/{function}/calls/batch": _FUNCTION_CALL,
    "GET /calls/{task}": _TASK_READ,
    "POST /calls/results": _user(_on("task", "read", "body:ids*", by_id=True)),
    "POST /calls/{task}/cancel": _user(_on("task", "operate", "path:task")),
    "PUT /projects/{project}/blobs/{sha256}": _PROJECT_CREATE,
    "GET /projects/{project}/blobs/{sha256}": _PROJECT_READ,
    # Experiments
    "POST /experiments": _user(
        _on("project", "create", "body:project"),
        _on("compute_resource", "use", "body:compute*"),
        _on("storage_resource", "use", "body:storage?"),
    ),
    "GET /experiments": _user(_on("project", "read", "query:project?")),
    "GET /experiments/{experiment}": _EXPERIMENT_READ,
    "POST /experiments/{experiment}/submit": _EXPERIMENT_OPERATE,
    "POST /experiments/{experiment}/pause": _EXPERIMENT_OPERATE,
    "POST /experiments/{experiment}/resume": _EXPERIMENT_OPERATE,
    "POST /experiments/{experiment}/cancel": _EXPERIMENT_OPERATE,
    "POST /experiments/{experiment}/retry": _EXPERIMENT_OPERATE,
    # The new experiment is the caller's own, so seeing the old one and creating work is enough.
    "POST /experiments/{experiment}/derive": _user(_on("experiment", "derive", "path:experiment")),
    "GET /experiments/{experiment}/progress": _EXPERIMENT_READ,
    "GET /experiments/{experiment}/timeline": _EXPERIMENT_READ,
    "GET /experiments/{experiment}/tasks": _EXPERIMENT_READ,
    "GET /experiments/{experiment}/failed-tasks": _EXPERIMENT_READ,
    "GET /experiments/{experiment}/explain": _EXPERIMENT_READ,
    "GET /experiments/{experiment}/artifacts": _EXPERIMENT_READ,
    "GET /experiments/{experiment}/archive": _EXPERIMENT_READ,
    "GET /experiments/{experiment}/events": _EXPERIMENT_READ,
    # Tasks and what they left
    "GET /tasks/{task}": _TASK_READ,
    "GET /tasks/{task}/attempts": _TASK_READ,
    "GET /tasks/{task}/explain": _TASK_READ,
    "GET /tasks/{task}/artifacts": _TASK_READ,
    "POST /tasks/{task}/cancel": _user(_on("task", "operate", "path:task")),
    "GET /tasks/{task}/logs/{stream}": _TASK_READ,
    "GET /tasks/{task}/logs/{stream}/events": _TASK_READ,
    "GET /artifacts/{artifact}": _ARTIFACT_READ,
    "GET /artifacts/{artifact}/content": _ARTIFACT_READ,
    # The system
    "GET /health": ANYONE,
    "GET /health/db": ANYONE,
    "GET /health/ready": ANYONE,
    "GET /openapi.json": ANYONE,
}

_ROOT: Mapping[str, Rule] = {
    "GET /": ANYONE,
    "GET /metrics": ANYONE,
    "GET /bootstrap": ANYONE,
    "POST /bootstrap": ANYONE,
    "GET /install.sh": ANYONE,
}

_AGENT_API: Mapping[str, Rule] = {
    # A one-time token or secret in the body says who is calling.
    "POST /enroll": ANYONE,
    "POST /token": ANYONE,
    "GET /download": ANYONE,
    "GET /download.sha256": ANYONE,
    "GET /install.sh": ANYONE,
    "POST /session": AGENT,
    "POST /session/end": AGENT,
    "POST /leases/claim": AGENT,
    "POST /leases/start": AGENT,
    "POST /leases/release": AGENT,
    "GET /leases/{lease}": AGENT,
    "PATCH /leases/{lease}/log/{stream}": AGENT,
    "PUT /leases/{lease}/artifacts": AGENT,
    "GET /leases/{lease}/inputs/{number}": AGENT,
    "GET /blobs/{sha256}": AGENT,
    "POST /heartbeat": AGENT,
    "POST /reports": AGENT,
    "POST /rotate": AGENT,
    "POST /unenroll": AGENT,
}


def _under(prefix: str, rows: Mapping[str, Rule]) -> dict[str, Rule]:
    return {name.replace(" /", f" {prefix}/", 1): rule for name, rule in rows.items()}


ROUTES: Mapping[str, Rule] = {
    **_under("/api/v1", _API),
    **_under("/agent/v1", _AGENT_API),
    **_ROOT,
}
