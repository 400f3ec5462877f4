"""Groups in projects, and resources that are shared with users and groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.functions import shares
from airavata_scheduler.models.tables import AuditEntry, Share
from tests.api import Api, LoggedIn, with_headers

KINDS = ("compute", "storage")
each_kind = pytest.mark.parametrize("kind", KINDS)


def group_of(owner: LoggedIn, name: str, *members: LoggedIn) -> None:
    """A new group of `owner` with these members."""
    assert owner.post("/groups", {"name": name}).status_code == 201
    for member in members:
        added = owner.post(f"/groups/{name}/members", {"user": member.name})
        assert added.status_code == 201, added.text


def resource(api: Api, kind: str, folder: Path) -> tuple[LoggedIn, str]:
    """A new resource that only the project `site` may use: its owner, and its path in the API."""
    admin = api.admin("admin")
    api.project(admin, "site")
    body: dict[str, Any] = {"name": "thing", "project": "site"}
    if kind == "storage":
        (folder / "data").mkdir()
        body |= {"kind": "NFS", "location": {"path": str(folder / "data")}}
    else:
        body |= {"kind": "SLURM", "endpoint": "ssh://login.example.org:22"}
    made = admin.post(f"/{kind}-resources", body)
    assert made.status_code == 201, made.text
    return admin, f"/{kind}-resources/thing"


# Groups in projects


def test_a_groups_role_is_everybodys(api: Api) -> None:
    """Whoever is in the group has the role, and loses it with the group's or their own place."""
    ada, bob, cleo = api.user("ada"), api.user("bob"), api.user("cleo")
    api.project(ada)
    group_of(ada, "physics", bob, cleo)

    added = ada.post("/projects/spine/members", {"group": "physics", "role": "viewer"})
    read = [user.get("/projects/spine").status_code for user in (bob, cleo)]
    ada.delete("/groups/physics/members/bob")
    without_bob = [user.get("/projects/spine").status_code for user in (bob, cleo)]
    removed = ada.delete("/projects/spine/groups/physics")

    assert added.status_code == 201
    assert (added.json["kind"], added.json["name"], added.json["role"]) == (
        "group",
        "physics",
        "viewer",
    )
    assert read == [200, 200]
    assert without_bob == [404, 200]
    assert removed.status_code == 204
    assert cleo.get("/projects/spine").status_code == 404


def test_users_come_before_groups(api: Api) -> None:
    """One list of both, each with its kind; `user_id` as long as there is one."""
    ada, bob = api.user("ada"), api.user("bob")
    api.project(ada, viewer=bob)
    group_of(ada, "aaa")
    ada.post("/projects/spine/members", {"group": "aaa", "role": "member"})

    first = ada.get("/projects/spine/members?limit=2").json
    rest = ada.get(f"/projects/spine/members?limit=2&cursor={first['next']}").json

    found = [
        (item["kind"], item["name"], item["role"], item["user_id"])
        for item in first["items"] + rest["items"]
    ]
    assert found == [
        ("user", "ada", "owner", ada.id),
        ("user", "bob", "viewer", bob.id),
        ("group", "aaa", "member", None),
    ]


@pytest.mark.parametrize("role", ["viewer", "member", "admin", "owner"])
def test_who_names_which_role(api: Api, role: str) -> None:
    """Admins give groups the roles that they may give users; owners all."""
    ada, bob = api.user("ada"), api.user("bob")
    api.project(ada, admin=bob)
    group_of(ada, "physics")
    group_of(ada, "all", bob)  # so that bob sees the group without being in it
    ada.post("/groups/all/members", {"group": "physics"})
    fits = 201 if role in ("viewer", "member") else 403

    by_admin = bob.post("/projects/spine/members", {"group": "physics", "role": role})
    by_owner = ada.post("/projects/spine/members", {"group": "physics", "role": role})
    changed = bob.patch("/projects/spine/groups/physics", {"role": "viewer"})
    raised = bob.patch("/projects/spine/groups/physics", {"role": "owner"})

    assert by_admin.status_code == fits
    assert by_owner.status_code == (409 if fits == 201 else 201)
    assert changed.status_code == (200 if fits == 201 else 403)
    assert raised.status_code == 403


def test_a_group_that_owns_is_no_last_owner(api: Api) -> None:
    """The last owner who is a user stays, whichever group owns the project as well."""
    ada, bob = api.user("ada"), api.user("bob")
    api.project(ada)
    group_of(ada, "physics", bob)
    ada.post("/projects/spine/members", {"group": "physics", "role": "owner"})

    leaves = ada.delete("/projects/spine/members/ada")

    assert (leaves.status_code, leaves.json["code"]) == (409, "last_owner")
    assert bob.patch("/projects/spine", {"description": "ours"}).status_code == 200


def test_a_group_leaves_a_project(api: Api) -> None:
    """Whoever manages the group may take it out, whatever its role; a mere member may not."""
    ada, bob, cleo = api.user("ada"), api.user("bob"), api.user("cleo")
    api.project(ada)
    group_of(bob, "physics", ada, cleo)
    ada.post("/projects/spine/members", {"group": "physics", "role": "owner"})
    ada.patch("/projects/spine/groups/physics", {"role": "viewer"})

    by_member = cleo.delete("/projects/spine/groups/physics")
    by_manager = bob.delete("/projects/spine/groups/physics")
    again = ada.delete("/projects/spine/groups/physics")

    assert by_member.status_code == 403
    assert by_manager.status_code == 204
    assert (again.status_code, again.json["code"]) == (404, "member_not_found")


# Shares


@each_kind
def test_sharing_with_a_user(api: Api, kind: str, tmp_path: Path) -> None:
    """They see and use the resource from then on, and no longer when the share has ended."""
    owner, path = resource(api, kind, tmp_path)
    bob = api.user("bob")
    before = bob.get(path).status_code

    made = owner.post(f"{path}/shares", {"user": "bob"})
    during = bob.get(path).status_code
    listed = owner.get(f"{path}/shares").json["items"]
    ended = owner.delete(f"{path}/shares?user=bob")
    after = bob.get(path).status_code

    assert (before, during, after) == (404, 200, 404)
    assert made.status_code == 201
    assert listed == [made.json]
    assert (made.json["kind"], made.json["name"], made.json["relation"]) == ("user", "bob", "user")
    assert made.json["created_by"] == owner.id
    assert ended.status_code == 204
    actions = [row.action for row in AuditEntry.select().order_by(AuditEntry.id)][-2:]
    assert actions == ["share", "unshare"]


@each_kind
def test_sharing_with_a_group(api: Api, kind: str, tmp_path: Path) -> None:
    """Also one that the sharer cannot see; its people lose it when the group is deleted."""
    owner, path = resource(api, kind, tmp_path)
    ada, bob = api.user("ada"), api.user("bob")
    group_of(ada, "outer")
    group_of(ada, "inner", bob)
    ada.post("/groups/outer/members", {"group": "inner"})

    made = owner.post(f"{path}/shares", {"group": "outer", "relation": "operator"})
    during = [user.get(path).status_code for user in (ada, bob)]
    names = [item["name"] for item in bob.get(f"/{kind}-resources").json["items"]]
    ada.delete("/groups/outer")

    assert made.status_code == 201
    assert during == [200, 200]
    assert "thing" in names
    assert [user.get(path).status_code for user in (ada, bob)] == [404, 404]
    assert not Share.select().exists()


@each_kind
def test_who_may_share(api: Api, kind: str, tmp_path: Path) -> None:
    """Whoever manages the resource; a user of it may not even see with whom, a stranger nothing."""
    owner, path = resource(api, kind, tmp_path)
    bob, eve = api.user("bob"), api.user("eve")
    owner.post(f"{path}/shares", {"user": "bob", "relation": "user"})

    asked = [("GET", "", None), ("POST", "", {"user": "eve"}), ("DELETE", "?user=bob", None)]
    found = {
        user.name: [user.request(method, f"{path}/shares{more}", body).status_code
                    for method, more, body in asked]
        for user in (bob, eve)
    }  # fmt: skip

    assert found == {"bob": [403] * 3, "eve": [404] * 3}


def test_shares_that_are_refused(api: Api, tmp_path: Path) -> None:
    """Each mistake has its code and field."""
    owner, path = resource(api, "compute", tmp_path)
    api.user("bob")
    owner.post(f"{path}/shares", {"user": "bob"})

    posts: list[tuple[dict[str, str], int, str]] = [
        ({"user": "bob"}, 409, "share_exists"),
        ({"user": "bab"}, 422, "user_not_found"),
        ({"group": "bob"}, 422, "group_not_found"),
        ({}, 422, "missing_field"),
        ({"user": "bob", "group": "g"}, 422, "ambiguous"),
        ({"user": "bob", "relation": "owner"}, 422, "invalid_literal_error"),
    ]
    deletes = [
        ("?user=bob&relation=operator", 404, "share_not_found"),
        ("?user=bob&relation=owner", 422, "relation_unknown"),
        ("?user=bab", 422, "user_not_found"),
        ("", 422, "missing_field"),
    ]

    for body, status, code in posts:
        answer = owner.post(f"{path}/shares", body)
        assert (answer.status_code, answer.json["code"]) == (status, code), body
    for query, status, code in deletes:
        answer = owner.delete(f"{path}/shares{query}")
        assert (answer.status_code, answer.json["code"]) == (status, code), query
    assert Share.select().count() == 1


def test_a_share_is_made_once(api: Api, tmp_path: Path) -> None:
    """The same Idempotency-Key gives the same answer instead of a conflict."""
    owner, path = resource(api, "compute", tmp_path)
    api.user("bob")
    keyed = with_headers(owner, Idempotency_Key="k")

    first, second = (keyed.post(f"{path}/shares", {"user": "bob"}) for _ in range(2))

    assert first.json == second.json
    assert second.headers["Idempotency-Replayed"] == "true"


def test_two_relations_of_one_user(api: Api, tmp_path: Path) -> None:
    """They are two shares, listed by name and relation; without a relation both end."""
    owner, path = resource(api, "compute", tmp_path)
    for name in ("bob", "cleo"):
        api.user(name)
        for relation in ("user", "operator"):
            owner.post(f"{path}/shares", {"user": name, "relation": relation})

    first = owner.get(f"{path}/shares?limit=3").json
    rest = owner.get(f"{path}/shares?limit=3&cursor={first['next']}").json
    owner.delete(f"{path}/shares?user=bob")
    owner.delete(f"{path}/shares?user=cleo&relation=user")

    assert [(item["name"], item["relation"]) for item in first["items"] + rest["items"]] == [
        ("bob", "operator"),
        ("bob", "user"),
        ("cleo", "operator"),
        ("cleo", "user"),
    ]
    left = owner.get(f"{path}/shares").json["items"]
    assert [(item["name"], item["relation"]) for item in left] == [("cleo", "operator")]


@each_kind
def test_a_deleted_resource_leaves_no_share(api: Api, kind: str, tmp_path: Path) -> None:
    """No row says that something is shared which is not there."""
    owner, path = resource(api, kind, tmp_path)
    api.user("bob")
    owner.post(f"{path}/shares", {"user": "bob"})

    assert owner.delete(path).status_code == 204

    assert not Share.select().exists()


def test_each_kind_has_its_relations() -> None:
    """They are those of the schema; a credential has no operator."""
    assert shares.RELATIONS["credential"] == ("writer", "reader", "revealer")
    assert shares.RELATIONS["compute_resource"] == shares.RELATIONS["storage_resource"]


# Endpoints


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "ssh://login.example.org",
        "ssh://login.example.org:2222",
        "ssh://10.0.0.7:22/",
        "ssh://[2001:db8::1]:22",
        "https://api.example.org:6443/clusters/a",
    ],
)
def test_endpoints_that_are_taken(api: Api, endpoint: str) -> None:
    """An address by SSH or HTTPS, or none."""
    admin = api.admin()
    admin.post("/compute-resources", {"name": "c", "kind": "SLURM"})

    answer = admin.patch("/compute-resources/c", {"endpoint": endpoint})

    assert answer.status_code == 200
    assert answer.json["endpoint"] == (endpoint or None)


@pytest.mark.parametrize(
    "endpoint",
    [
        "login.example.org",
        "http://example.org",
        "file:///etc/passwd",
        "ssh://",
        "ssh://:22",
        "ssh://host:0",
        "ssh://host:99999",
        "ssh://host:",
        "ssh://host:22/path",
        "ssh://me@host",
        "ssh://me:secret@host",
        "https://host/?q=1",
        "https://host/#a",
        "https://ho st/",
        "https://höst/",
        "ssh://-oProxyCommand=x",
        "ssh://[::1",
        "ssh://" + "a" * 300,
    ],
)
def test_endpoints_that_are_refused(api: Api, endpoint: str) -> None:
    """Whatever else is told by its field."""
    answer = api.admin().post(
        "/compute-resources", {"name": "c", "kind": "SLURM", "endpoint": endpoint}
    )

    assert answer.status_code == 422
    assert answer.json["field"] == "endpoint"


def test_an_endpoint_is_shown_to_those_who_manage(api: Api, tmp_path: Path) -> None:
    """A user of the resource does not learn where it is."""
    owner, path = resource(api, "compute", tmp_path)
    bob = api.user("bob")
    owner.post(f"{path}/shares", {"user": "bob"})

    assert owner.get(path).json["endpoint"] == "ssh://login.example.org:22"
    assert bob.get(path).json["endpoint"] is None
    listed = bob.get("/compute-resources").json["items"]
    assert [item["endpoint"] for item in listed] == [None]
