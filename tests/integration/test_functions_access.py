"""The route table: every route has its row, and every row refuses whom it must."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airavata_scheduler.functions import access
from airavata_scheduler.functions.route_table import ROUTES
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.ids import new_id, new_lease_id
from airavata_scheduler.models.tables import (
    Agent,
    Artifact,
    ComputeResource,
    Credential,
    Experiment,
    Function,
    Group,
    GroupMember,
    Node,
    ProjectGroup,
    StorageResource,
    Task,
)
from tests.api import Api, LoggedIn, refill

# A route's own addition to the path's variables, where there is more than the object.
OTHER_VARIABLES = {
    "stream": "stdout",
    "sha256": "0" * 64,
    "user": "nobody",
    "lease": "x",
    "number": "1",
}
ANYONE = {
    "GET /",
    "GET /metrics",
    "GET /bootstrap",
    "POST /bootstrap",
    "GET /install.sh",
    "POST /api/v1/auth/bootstrap",
    "POST /api/v1/auth/password-link",
    "POST /api/v1/auth/login",
    "GET /api/v1/auth/oidc/start",
    "GET /api/v1/auth/oidc/callback",
    "POST /api/v1/auth/oidc/token",
    "POST /api/v1/auth/refresh",
    "GET /api/v1/health",
    "GET /api/v1/health/db",
    "GET /api/v1/health/ready",
    "GET /api/v1/openapi.json",
    "POST /agent/v1/enroll",
    "POST /agent/v1/token",
    "GET /agent/v1/download",
    "GET /agent/v1/download.sha256",
    "GET /agent/v1/install.sh",
}


def test_every_route_has_a_row_and_every_row_a_route(api: Api) -> None:
    """Neither a route that nobody guards, nor a row that guards nothing."""
    assert access.routes_of(api.app) == set(ROUTES)


def test_a_route_without_a_row_stops_the_start(api: Api) -> None:
    """Whoever forgets the row learns it before the first request."""
    api.app._got_first_request = False
    api.app.add_url_rule("/api/v1/forgotten", "forgotten", lambda: "")

    with pytest.raises(LookupError, match="forgotten"):
        access.check_routes(api.app)


def test_what_anyone_may_call_is_a_short_list() -> None:
    """A new open route needs a change here too: it must be meant."""
    assert {name for name, rule in ROUTES.items() if rule.who == "anyone"} == ANYONE


class Tenant:
    """Objects of every kind in one project, by the place that names them."""

    def __init__(self, api: Api, owner: LoggedIn, name: str) -> None:
        self.project = api.project(owner, name)["id"]
        now, ids = (
            now_ms(),
            {kind: new_id() for kind in ("c", "s", "a", "f", "e", "n", "t", "r", "g", "k")},
        )
        common = {"owner_id": owner.id, "created_at": now, "updated_at": now}
        bound = {"project_id": self.project, "name": f"{name}-x", **common}
        ComputeResource.insert(id=ids["c"], kind="SLURM", limits={}, timers={}, **bound).execute()
        StorageResource.insert(
            id=ids["s"], kind="NFS", location={"path": "/nowhere"}, **bound
        ).execute()
        Agent.insert(
            id=ids["a"], compute_id=ids["c"], name="node", secret_hash="0" * 64,
            secret_set_at=now, host={}, capabilities={}, policy={}, created_at=now, state="active",
        ).execute()  # fmt: skip
        Function.insert(id=ids["f"], **bound).execute()
        Experiment.insert(id=ids["e"], spec={}, compute=[ids["c"]], **bound).execute()
        Node.insert(id=ids["n"], experiment_id=ids["e"], name="n", position=0, spec={}).execute()
        Task.insert(
            id=ids["t"], experiment_id=ids["e"], node_id=ids["n"], idx=0, compute_id=ids["c"],
            created_at=now,
        ).execute()  # fmt: skip
        Artifact.insert(
            id=ids["r"], experiment_id=ids["e"], node_id=ids["n"], idx=0, task_id=ids["t"],
            lease_id=new_lease_id(), attempt=1, output="o", path="o", size=0, sha256="0" * 64,
            storage_id=ids["s"], storage_key="k", state="published", created_at=now,
        ).execute()  # fmt: skip
        Group.insert(id=ids["g"], name=f"{name}-g", created_at=now, updated_at=now).execute()
        GroupMember.insert(
            group_id=ids["g"], subject_kind="user", subject_id=owner.id, role="owner",
            created_at=now,
        ).execute()  # fmt: skip
        ProjectGroup.insert(
            project_id=self.project, group_id=ids["g"], role="viewer", created_at=now
        ).execute()
        Credential.insert(
            id=ids["k"], name=f"{name}-k", kind="PASSWORD", public={}, secret_version=1,
            write_id=new_id(), **common,
        ).execute()  # fmt: skip
        refill()
        self.ids = {
            "project": self.project,
            "user": owner.id,
            "group": ids["g"],
            "credential": ids["k"],
            "compute_resource": ids["c"],
            "storage_resource": ids["s"],
            "agent": ids["a"],
            "function": ids["f"],
            "experiment": ids["e"],
            "task": ids["t"],
            "artifact": ids["r"],
        }


def called(caller: Any, name: str, named: dict[str, str]) -> Any:
    """Call the route with each of its checks' places naming the object of `named` by kind."""
    method, path = name.split(" ", 1)
    body: dict[str, Any] = {}
    query: dict[str, str] = {}
    for check in ROUTES[name].checks:
        if check.kind == "system":
            continue
        source, field = check.place.rstrip("?*").split(":")
        value = named[check.kind]
        if source == "path":
            path = path.replace(f"{{{field}}}", value)
        elif source == "query":
            query[field] = value
        else:
            body[field] = [value] if check.place.endswith("*") else value
    path = re.sub(r"{(\w+)}", lambda match: OTHER_VARIABLES.get(match.group(1), "x"), path)
    with_body = {"json": body} if method in ("POST", "PATCH", "PUT") else {}
    return caller.request(method, "/" + path, query_string=query, **with_body)


GUARDED = sorted(name for name, rule in ROUTES.items() if rule.who == "user")
WITH_OBJECT = [
    name for name in GUARDED if any(check.kind != "system" for check in ROUTES[name].checks)
]


def test_nobody_gets_in_without_a_token(api: Api) -> None:
    """Each guarded route, the agents' too, answers 401 before it looks at anything else."""
    guarded = [name for name, rule in ROUTES.items() if rule.who != "anyone"]
    named = dict.fromkeys(Tenant(api, api.user(), "spine").ids, new_id())

    answers = {name: called(api.nobody, name, named).status_code for name in guarded}

    assert answers == dict.fromkeys(guarded, 401)


def test_users_do_not_get_into_the_agents_api(api: Api) -> None:
    """A user's token is none of an agent's."""
    ada = api.user("ada")
    routes = [name for name, rule in ROUTES.items() if rule.who == "agent"]

    answers = {name: called(ada, name, {}).status_code for name in routes}

    assert answers == dict.fromkeys(routes, 401)


def test_another_tenants_objects_do_not_exist(api: Api) -> None:
    """On each route with an object a stranger gets 404, word for word as for an id of nobody."""
    ada, eve = api.user("ada"), api.user("eve")
    ids = Tenant(api, ada, "spine").ids
    nobodys = {kind: new_id() for kind in ids}

    differences = []
    for name in WITH_OBJECT:
        texts = []
        for named in (ids, nobodys):
            answer = called(eve, name, named)
            text = re.sub(r'"request_id":"\w+"', "", answer.text)
            for kind, value in named.items():
                text = text.replace(value, kind)
            texts.append((answer.status_code, text))
        if name == "POST /api/v1/storage-resources":
            assert texts[0][0] == 403  # it takes a system administrator before any object
        elif texts[0] != texts[1] or texts[0][0] != 404:
            differences.append((name, texts))

    assert differences == []


def test_reading_is_not_enough_for_more(api: Api) -> None:
    """A viewer gets 403 on each route whose row asks for more than `read`.

    A credential is its owner's, whatever the project: to a viewer it does not exist.
    """
    ada, bob = api.user("ada"), api.user("bob")
    tenant = Tenant(api, ada, "spine")
    ada.post("/projects/spine/members", {"user": "bob", "role": "viewer"})
    more = [
        name
        for name in GUARDED
        if any(check.permission != "read" for check in ROUTES[name].checks)
        and not any(check.kind == "credential" for check in ROUTES[name].checks)
    ]

    answers = {name: called(bob, name, tenant.ids).status_code for name in more}

    assert answers == dict.fromkeys(more, 403)


def test_system_administrators_see_no_work_of_others(api: Api) -> None:
    """They manage projects and resources; functions, experiments and tasks stay their members'."""
    ada, admin = api.user("ada"), api.admin()
    ids = Tenant(api, ada, "spine").ids

    assert admin.get(f"/projects/{ids['project']}").status_code == 200
    assert admin.get(f"/agents/{ids['agent']}").status_code == 200
    for kind in ("function", "experiment", "task", "artifact"):
        assert admin.get(f"/{kind}s/{ids[kind]}").status_code == 404, kind


def test_members_operate_their_own_work_only(api: Api) -> None:
    """A member gets 403 on a colleague's experiment; the owner and project admins get through."""
    ada, bob, cat = api.user("ada"), api.user("bob"), api.user("cat")
    ids = Tenant(api, ada, "spine").ids
    ada.post("/projects/spine/members", {"user": "bob", "role": "member"})
    ada.post("/projects/spine/members", {"user": "cat", "role": "admin"})
    path = f"/experiments/{ids['experiment']}/cancel"

    assert bob.post(path).status_code == 403
    assert cat.post(path).status_code != 403
    assert ada.post(path).status_code != 403


def test_trace_is_not_served_and_options_tells_the_methods(api: Api) -> None:
    """TRACE would echo headers; OPTIONS needs no token; HEAD is GET without a body."""
    ada = api.user("ada")

    trace = ada.request("TRACE", "/users/me")
    options = api.nobody.request("OPTIONS", "/users/me")
    head = ada.request("HEAD", "/users/me")

    assert trace.status_code == 405
    assert options.status_code == 200
    assert "PATCH" in options.headers["Allow"]
    assert head.status_code == 200
    assert head.data == b""
    assert api.nobody.request("HEAD", "/users/me").status_code == 401
