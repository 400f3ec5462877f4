"""Projects, their members, and what each role may."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airavata_scheduler.backends.spicedb import spicedb
from airavata_scheduler.models.tables import AuditEntry, OutboxEntry, ProjectMember
from tests.api import Api, LoggedIn


def relations(project_id: str) -> set[tuple[str, str]]:
    """Who has which relation to a project in SpiceDB, as (relation, user's id)."""
    found = spicedb().relationships("project", project_id)
    return {(each.relation, each.subject_id) for each in found if each.subject_kind == "user"}


def test_whoever_makes_a_project_owns_it(api: Api) -> None:
    """The answer says so, and so do the members, the outbox and the audit."""
    ada = api.user("ada")

    made = ada.post("/projects", {"name": "spine", "description": "The whole way."})

    assert made.status_code == 201
    assert made.json["role"] == "owner"
    assert made.json["created_at"].endswith("Z")
    members = ada.get("/projects/spine/members").json["items"]
    assert [(item["name"], item["role"]) for item in members] == [("ada", "owner")]
    assert relations(made.json["id"]) == {("owner", ada.id)}
    entry = AuditEntry.get(AuditEntry.action == "create")
    assert (entry.object_kind, entry.object_id, entry.actor_id) == (
        "project",
        made.json["id"],
        ada.id,
    )


def test_a_failed_creation_leaves_nothing(api: Api) -> None:
    """Grants and audit are written in the change's transaction: a taken name leaves none."""
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada)
    before = OutboxEntry.select().count()

    answer = bob.post("/projects", {"name": "spine"})

    assert answer.status_code == 409
    assert answer.json["code"] == "name_taken"
    assert OutboxEntry.select().count() == before
    assert relations(project["id"]) == {("owner", ada.id)}
    assert not AuditEntry.select().where(
        (AuditEntry.actor_id == bob.id) & (AuditEntry.action == "create")
    )


@pytest.mark.parametrize("way", ["id", "name", "prefix"])
def test_a_project_is_found_by_id_name_or_prefix(api: Api, way: str) -> None:
    """All three lead to the same project."""
    ada = api.user("ada")
    project = api.project(ada)
    asked = {"id": project["id"], "name": "spine", "prefix": project["id"][:30]}[way]

    answer = ada.get(f"/projects/{asked}")

    assert answer.json["id"] == project["id"]


def test_a_wrong_name_gets_the_nearest_that_you_may_see(api: Api) -> None:
    """Never one of somebody else's."""
    ada, eve = api.user("ada"), api.user("eve")
    for name in ("diffusion", "diffusion-2", "monte-carlo"):
        api.project(ada, name)
    api.project(eve, "diffusions")

    answer = ada.get("/projects/difusion")

    assert answer.status_code == 404
    assert answer.json["code"] == "project_not_found"
    assert "diffusion" in answer.json["hint"]
    assert "diffusions" not in answer.json["hint"]


def test_an_ambiguous_prefix_is_refused(api: Api) -> None:
    """Ids that begin alike are told apart by a longer prefix only."""
    ada = api.user("ada")
    first, second = api.project(ada, "one"), api.project(ada, "two")
    assert first["id"][:6] == second["id"][:6]

    answer = ada.get(f"/projects/{first['id'][:6]}")

    assert answer.status_code == 422
    assert answer.json["code"] == "ambiguous_name"
    assert first["id"] in answer.json["hint"]


def test_a_prefix_is_ambiguous_only_among_what_you_may_see(api: Api) -> None:
    """Somebody else's project of the same moment neither disturbs nor shows."""
    ada, eve = api.user("ada"), api.user("eve")
    mine, theirs = api.project(ada, "one"), api.project(eve, "two")
    assert mine["id"][:6] == theirs["id"][:6]

    answer = ada.get(f"/projects/{mine['id'][:6]}")

    assert answer.json["name"] == "one"


@pytest.mark.parametrize("asked", ["x" * 300, "%00", "a%0Ab", "%F0%9F%92%A5", "0" * 35, "-" * 8])
def test_names_that_fit_nothing_are_not_found(api: Api, asked: str) -> None:
    """No text in a path is a fault of the server, whatever the database thinks of it."""
    answer = api.user().get(f"/projects/{asked}")

    assert answer.status_code == 404


# What each role may do: (method, path, body) → the weakest role that may.
ACTIONS: list[tuple[str, str, dict[str, Any] | None, str]] = [
    ("GET", "/projects/spine", None, "viewer"),
    ("GET", "/projects/spine/members", None, "viewer"),
    ("PATCH", "/projects/spine", {"description": "new"}, "admin"),
    ("POST", "/projects/spine/members", {"user": "extra", "role": "viewer"}, "admin"),
    ("POST", "/projects/spine/members", {"user": "extra", "role": "admin"}, "owner"),
    ("PATCH", "/projects/spine/members/pawn", {"role": "member"}, "admin"),
    ("PATCH", "/projects/spine/members/pawn", {"role": "owner"}, "owner"),
    ("DELETE", "/projects/spine/members/pawn", None, "admin"),
    ("DELETE", "/projects/spine", None, "owner"),
]
ROLES = ("viewer", "member", "admin", "owner")


@pytest.mark.parametrize("role", [*ROLES, "stranger"])
def test_what_each_role_may(api: Api, role: str) -> None:
    """Each action is possible from its role on; a stranger sees no project at all."""
    found = []
    for number, (method, path, body, _) in enumerate(ACTIONS):
        name = f"spine-{number}"
        root, actor = api.user(), api.user()
        pawn, extra = api.user(f"pawn-{number}"), api.user(f"extra-{number}")
        api.project(root, name, viewer=pawn)
        if role != "stranger":
            root.post(f"/projects/{name}/members", {"user": actor.name, "role": role})
        numbered = {**body, "user": extra.name} if body and "user" in body else body
        target = path.replace("spine", name).replace("pawn", pawn.name)
        found.append(actor.request(method, target, numbered).status_code)

    rank = {name: position for position, name in enumerate(ROLES)}
    for (method, path, _, needed), status in zip(ACTIONS, found, strict=True):
        if role == "stranger":
            assert status == 404, (method, path)
        elif rank[role] >= rank[needed]:
            assert status in (200, 201, 204), (method, path, status)
        else:
            assert status == 403, (method, path, status)


def test_everybody_may_leave_but_the_last_owner(api: Api) -> None:
    """A project always has an owner; leaving needs nobody's permission."""
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, viewer=bob)

    stays = ada.delete("/projects/spine/members/ada")
    demoted = ada.patch("/projects/spine/members/ada", {"role": "member"})
    left = bob.delete("/projects/spine/members/bob")

    assert stays.status_code == demoted.status_code == 409
    assert stays.json["code"] == "last_owner"
    assert left.status_code == 204
    assert bob.get("/projects/spine").status_code == 404
    assert relations(project["id"]) == {("owner", ada.id)}


def test_two_owners_who_leave_at_once(api: Api) -> None:
    """One of them stays, and the project's owner is the one who is left."""
    ada, bob = api.user("ada"), api.user("bob")
    api.project(ada, owner=bob)

    def leave(user: LoggedIn) -> int:
        return user.delete(f"/projects/spine/members/{user.name}").status_code

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(leave, [ada, bob]))

    assert answers == [204, 409]
    left = ProjectMember.get()
    admin = api.admin()
    assert admin.get("/projects/spine").json["owner_id"] == left.user_id


def test_a_role_change_is_two_relations(api: Api) -> None:
    """The old relation goes and the new one comes."""
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, viewer=bob)

    ada.patch("/projects/spine/members/bob", {"role": "admin"})

    assert relations(project["id"]) == {("owner", ada.id), ("admin", bob.id)}


def test_adding_twice_or_nobody(api: Api) -> None:
    """A member is added once; a wrong name is told by its field."""
    ada, bob = api.user("ada"), api.user("bob")
    api.project(ada, viewer=bob)

    twice = ada.post("/projects/spine/members", {"user": "bob"})
    nobody = ada.post("/projects/spine/members", {"user": "bab"})

    assert twice.status_code == 409
    assert twice.json["code"] == "member_exists"
    assert nobody.status_code == 422
    assert nobody.json["field"] == "user"


def test_a_deleted_project_is_gone_and_its_name_is_free(api: Api) -> None:
    """Nobody finds it any more, its members lose it, and the name can be used again."""
    ada, bob = api.user("ada"), api.user("bob")
    old = api.project(ada, member=bob)

    answer = ada.delete("/projects/spine")

    assert answer.status_code == 204
    assert bob.get(f"/projects/{old['id']}").status_code == 404
    assert bob.get("/projects").json["items"] == []
    assert api.project(bob)["id"] != old["id"]


def test_lists_hold_what_you_may_see(api: Api) -> None:
    """Yours, page by page; an administrator sees all, and `me/projects` only the own ones."""
    ada, eve, admin = api.user("ada"), api.user("eve"), api.admin()
    for number in range(3):
        api.project(ada, f"a{number}")
    api.project(eve, "e0")

    first = ada.get("/projects?limit=2").json
    rest = ada.get(f"/projects?limit=2&cursor={first['next']}").json

    assert [item["name"] for item in first["items"] + rest["items"]] == ["a0", "a1", "a2"]
    assert len(admin.get("/projects").json["items"]) == 4
    assert admin.get("/users/me/projects").json["items"] == []
    assert [item["role"] for item in eve.get("/users/me/projects").json["items"]] == ["owner"]


def test_cursors_cannot_be_forged_or_moved(api: Api) -> None:
    """A cursor works for its caller and its list only."""
    ada, eve, admin = api.user("ada"), api.user("eve"), api.admin()
    for number in range(3):
        api.project(ada, f"a{number}")
    cursor = ada.get("/projects?limit=1").json["next"]
    wrong = [
        eve.get(f"/projects?cursor={cursor}"),
        ada.get(f"/users/me/projects?cursor={cursor}"),
        ada.get(f"/projects?cursor={cursor[:-2]}AA"),
        ada.get("/projects?cursor=WyJhMCJd"),
        ada.get("/projects?cursor=é"),
        admin.get("/projects?cursor="),
    ]

    assert [answer.status_code for answer in wrong] == [422] * 6
    assert {answer.json["code"] for answer in wrong} == {"invalid_cursor"}


@pytest.mark.parametrize("limit", ["0", "201", "-1", "x", "1e3", "\u0661"])
def test_limits_out_of_range(api: Api, limit: str) -> None:
    """A page has 1 to 200 items."""
    answer = api.user().get(f"/projects?limit={limit}")

    assert answer.status_code == 422
    assert answer.json["field"] == "limit"


def test_an_unknown_query_parameter_is_an_error(api: Api) -> None:
    """A misspelt filter must not silently list everything."""
    answer = api.user().get("/projects?limt=5")

    assert answer.status_code == 422
    assert answer.json["code"] == "unknown_field"
    assert "limit" in answer.json["detail"]
