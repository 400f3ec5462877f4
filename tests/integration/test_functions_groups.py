"""Groups: their members, groups in groups, and what a group's end takes away."""

from __future__ import annotations

import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest

from airavata_scheduler.functions import group_members
from airavata_scheduler.models import groups
from airavata_scheduler.models.tables import AuditEntry, Group, GroupMember
from tests.api import Answered, Api, LoggedIn, with_headers
from tests.in_step import out_of_step


def make_group(owner: LoggedIn, name: str = "physics", /, **members: LoggedIn) -> dict[str, Any]:
    """A new group of `owner`; users in it by role, as `manager=grace`."""
    made = owner.post("/groups", {"name": name})
    assert made.status_code == 201, made.text
    for role, user in members.items():
        add(owner, name, user=user.name, role=role)
    found: dict[str, Any] = made.json
    return found


def add(actor: LoggedIn, group: str, /, **body: str) -> None:
    """Put a user (`user=`) or a group (`group=`) into a group."""
    answer = actor.post(f"/groups/{group}/members", body)
    assert answer.status_code == 201, answer.text


def nested(owner: LoggedIn, *names: str) -> None:
    """New groups, each holding the next one."""
    for name in names:
        make_group(owner, name)
    for outer, inner in itertools.pairwise(names):
        add(owner, outer, group=inner)


def in_group(user: LoggedIn, group: str) -> list[tuple[str, str, str]]:
    """Who is in a group, as `user` sees it."""
    items = user.get(f"/groups/{group}/members").json["items"]
    return [(item["kind"], item["name"], item["role"]) for item in items]


def test_whoever_makes_a_group_owns_it(api: Api) -> None:
    """The answer, the members and the audit say so; the name is taken then."""
    ada = api.user("ada")

    made = make_group(ada)
    again = api.user().post("/groups", {"name": "physics"})

    assert made["role"] == "owner"
    assert in_group(ada, "physics") == [("user", "ada", "owner")]
    assert (again.status_code, again.json["code"]) == (409, "name_taken")
    entry = AuditEntry.get(AuditEntry.action == "create")
    assert (entry.object_kind, entry.object_id) == ("group", made["id"])


def test_a_group_is_made_once(api: Api) -> None:
    """The same Idempotency-Key answers with the same group, and with the same member."""
    ada, _ = with_headers(api.user("ada"), Idempotency_Key="k"), api.user("bob")

    first, second = (ada.post("/groups", {"name": "physics"}) for _ in range(2))

    assert first.json == second.json
    assert Group.select().count() == 1


def test_a_foreign_group_does_not_exist(api: Api) -> None:
    """Whatever is asked of it, the answer is that of a group which is not there."""
    ada, eve = api.user("ada"), api.user("eve")
    make_group(ada)
    make_group(eve, "mine")
    api.project(eve, "hers")
    asked: list[tuple[str, str, dict[str, str] | None]] = [
        ("GET", "/groups/{}", None),
        ("PATCH", "/groups/{}", {"description": "x"}),
        ("DELETE", "/groups/{}", None),
        ("GET", "/groups/{}/members", None),
        ("POST", "/groups/{}/members", {"user": "eve"}),
        ("PATCH", "/groups/{}/members/ada", {"role": "member"}),
        ("DELETE", "/groups/{}/members/ada", None),
        ("DELETE", "/groups/{}/groups/ada", None),
        ("POST", "/groups/mine/members", {"group": "{}"}),
        ("POST", "/projects/hers/members", {"group": "{}"}),
    ]

    for method, path, body in asked:
        foreign, absent = (
            eve.request(
                method,
                path.format(name),
                body and {key: value.format(name) for key, value in body.items()},
            )
            for name in ("physics", "phantom")
        )
        assert foreign.status_code == absent.status_code == 404, (method, path)
        assert foreign.json["detail"].replace("physics", "phantom") == absent.json["detail"]
        assert foreign.json["code"] == "group_not_found"
    assert [item["name"] for item in eve.get("/groups").json["items"]] == ["mine"]


# What each role may do: (method, path, body) → the weakest role that may.
ACTIONS: list[tuple[str, str, dict[str, Any] | None, str]] = [
    ("GET", "", None, "member"),
    ("GET", "/members", None, "member"),
    ("PATCH", "", {"description": "new"}, "manager"),
    ("POST", "/members", {"user": "extra"}, "manager"),
    ("POST", "/members", {"user": "extra", "role": "manager"}, "owner"),
    ("PATCH", "/members/pawn", {"role": "member"}, "manager"),
    ("PATCH", "/members/pawn", {"role": "owner"}, "owner"),
    ("DELETE", "/members/pawn", None, "manager"),
    ("DELETE", "/members/chief", None, "owner"),
    ("DELETE", "", None, "owner"),
]
ROLES = ("member", "manager", "owner")


@pytest.mark.parametrize("role", ROLES)
def test_what_each_role_may(api: Api, role: str) -> None:
    """Managers look after members, owners also after managers and owners."""
    root, actor = api.user("root"), api.user("actor")
    pawn, chief, _ = api.user("pawn"), api.user("chief"), api.user("extra")
    found = []
    for number, (method, path, body, _) in enumerate(ACTIONS):
        name = f"g{number}"
        make_group(root, name, member=pawn, manager=chief)
        add(root, name, user=actor.name, role=role)
        found.append(actor.request(method, f"/groups/{name}{path}", body).status_code)

    rank = {name: position for position, name in enumerate(ROLES)}
    for (method, path, _, needed), status in zip(ACTIONS, found, strict=True):
        if rank[role] >= rank[needed]:
            assert status in (200, 201, 204), (method, path, status)
        else:
            assert status == 403, (method, path, status)


def test_a_group_in_a_group_is_a_member(api: Api) -> None:
    """It has no other role, cannot be put in twice, and its people are in the outer one."""
    ada, bob = api.user("ada"), api.user("bob")
    nested(ada, "outer", "inner")
    add(ada, "inner", user="bob")

    twice = ada.post("/groups/outer/members", {"group": "inner"})
    as_manager = ada.post("/groups/outer/members", {"group": "inner", "role": "manager"})
    both = ada.post("/groups/outer/members", {"group": "inner", "user": "bob"})
    none = ada.post("/groups/outer/members", {})

    assert (twice.status_code, twice.json["code"]) == (409, "member_exists")
    assert (as_manager.status_code, as_manager.json["code"]) == (422, "group_role")
    assert (both.status_code, both.json["code"]) == (422, "ambiguous")
    assert (none.status_code, none.json["code"]) == (422, "missing_field")
    assert in_group(bob, "outer") == [("user", "ada", "owner"), ("group", "inner", "member")]
    mine = bob.get("/users/me/groups").json["items"]
    assert [(item["name"], item["role"]) for item in mine] == [("inner", "member"), ("outer", None)]


def test_groups_five_deep(api: Api) -> None:
    """Whoever is in the innermost group is in the outermost; taken out there, in none."""
    ada, bob = api.user("ada"), api.user("bob")
    nested(ada, "a", "b", "c", "d", "e")
    add(ada, "e", user="bob")
    before = bob.get("/groups/a").status_code

    ada.delete("/groups/e/members/bob")

    assert before == 200
    assert bob.get("/groups/a").status_code == bob.get("/groups/e").status_code == 404
    assert bob.get("/users/me/groups").json["items"] == []


def test_a_group_cannot_be_inside_itself(api: Api) -> None:
    """The answer names the way round."""
    ada = api.user("ada")
    nested(ada, "a", "b", "c")

    long = ada.post("/groups/c/members", {"group": "a"})
    short = ada.post("/groups/a/members", {"group": "a"})

    assert (long.status_code, long.json["code"]) == (409, "group_cycle")
    assert "c in b in a in c" in long.json["detail"]
    assert (short.status_code, short.json["code"]) == (409, "group_cycle")
    assert "a in a" in short.json["detail"]
    assert GroupMember.select().where(GroupMember.subject_kind == "group").count() == 2


def meet_behind(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, *, wait_s: float = 0.5
) -> None:
    """Let two requests wait for each other behind a check, for a while.

    If nothing holds the second one back before it, both have passed it when they go on.
    """
    check, barrier = getattr(module, name), threading.Barrier(2)

    def checked(*arguments: Any) -> None:
        check(*arguments)
        with suppress(threading.BrokenBarrierError):
            barrier.wait(wait_s)

    monkeypatch.setattr(module, name, checked)


def test_insertions_that_close_a_circle_together(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same moment, and without a group in common: the second one is refused."""
    ada = api.user("ada")
    nested(ada, "b", "c")
    nested(ada, "d", "a")
    meet_behind(monkeypatch, groups, "check_nesting")

    def put(way: str) -> Answered:
        return ada.post(f"/groups/{way[0]}/members", {"group": way[1]})

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(put, ["ab", "cd"]))

    assert sorted(answer.status_code for answer in answers) == [201, 409]
    refused = max(answers, key=lambda answer: answer.status_code)
    assert refused.json["code"] == "group_cycle"


def test_how_deep_groups_may_lie(api: Api) -> None:
    """Ten, whether the eleventh comes outside, inside, or two long chains are joined."""
    ada = api.user("ada")
    nested(ada, *[f"g{number}" for number in range(groups.MAX_DEPTH)])
    nested(ada, "x0", "x1")

    outside = ada.post("/groups/x1/members", {"group": "g0"})
    inside = ada.post("/groups/g9/members", {"group": "x1"})
    joined = ada.post("/groups/g8/members", {"group": "x0"})
    fits = ada.post("/groups/g8/members", {"group": "x1"})

    for answer in (outside, inside, joined):
        assert (answer.status_code, answer.json["code"]) == (409, "group_too_deep")
    assert fits.status_code == 201


def test_how_many_fit(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group has a limit; a group inside it is one more member."""
    ada, _ = api.user("ada"), api.user("bob")
    make_group(ada)
    monkeypatch.setattr(groups, "MAX_MEMBERS", 1)

    answer = ada.post("/groups/physics/members", {"user": "bob"})

    assert (answer.status_code, answer.json["code"]) == (409, "group_full")


def test_everybody_may_leave_but_the_last_owner(api: Api) -> None:
    """A group always has an owner; leaving needs nobody's permission."""
    ada, bob = api.user("ada"), api.user("bob")
    make_group(ada, "physics", member=bob)

    stays = ada.delete("/groups/physics/members/ada")
    demoted = ada.patch("/groups/physics/members/ada", {"role": "manager"})
    left = bob.delete("/groups/physics/members/bob")
    gone = ada.delete("/groups/physics/members/bob")

    assert stays.status_code == demoted.status_code == 409
    assert stays.json["code"] == demoted.json["code"] == "last_owner"
    assert left.status_code == 204
    assert bob.get("/groups/physics").status_code == 404
    assert (gone.status_code, gone.json["code"]) == (404, "member_not_found")


def test_two_owners_who_leave_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them stays."""
    ada, bob = api.user("ada"), api.user("bob")
    make_group(ada, "physics", owner=bob)
    meet_behind(monkeypatch, group_members, "_keep_an_owner")

    def leave(user: LoggedIn) -> int:
        return user.delete(f"/groups/physics/members/{user.name}").status_code

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(leave, [ada, bob]))

    assert answers == [204, 409]


def test_a_group_is_taken_out_by_either_side(api: Api) -> None:
    """Who manages the outer or the inner group may; a plain member of both may not."""
    ada, bob, eve = api.user("ada"), api.user("bob"), api.user("eve")
    make_group(bob, "inner", member=ada)
    make_group(ada, "outer", member=eve)

    answers = []
    for actor in (eve, bob, ada):
        ada.post("/groups/outer/members", {"group": "inner"})
        answers.append(actor.delete("/groups/outer/groups/inner").status_code)

    assert answers == [403, 204, 204]


def test_two_editors(api: Api) -> None:
    """The second one with the old ETag is told; a name that is taken is refused."""
    ada = api.user("ada")
    make_group(ada)
    make_group(ada, "chemistry")
    tag = ada.get("/groups/physics").headers["ETag"]

    first = ada.patch("/groups/physics", {"description": "a"}, headers={"If-Match": tag})
    second = ada.patch("/groups/physics", {"description": "b"}, headers={"If-Match": tag})
    late = ada.delete("/groups/physics", headers={"If-Match": tag})
    taken = ada.patch("/groups/physics", {"name": "chemistry"})

    assert first.status_code == 200
    assert second.status_code == late.status_code == 412
    assert (taken.status_code, taken.json["code"]) == (409, "name_taken")
    assert first.json["version"] == 2


def test_members_page_by_page(api: Api) -> None:
    """Users by name, behind them groups by name, whatever the size of a page."""
    ada = api.user("ada")
    make_group(ada, "physics", member=api.user("bob"), manager=api.user("cleo"))
    for name in ("aaa", "zzz"):
        make_group(ada, name)
        add(ada, "physics", group=name)

    found: list[str] = []
    cursor = ""
    while True:
        page = ada.get(f"/groups/physics/members?limit=2{cursor}").json
        found += [item["name"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"

    assert found == ["ada", "bob", "cleo", "aaa", "zzz"]


def test_a_deleted_group_takes_away_at_once_what_it_gave(api: Api) -> None:
    """Its people are out of the groups, projects and resources at their next request."""
    ada, bob = api.user("ada"), api.user("bob")
    nested(ada, "outer", "physics", "inner")
    add(ada, "inner", user="bob")
    api.project(ada, "spine")
    ada.post("/projects/spine/members", {"group": "outer", "role": "viewer"})
    ada.post("/projects/spine/members", {"group": "physics", "role": "member"})
    before = [bob.get(path).status_code for path in ("/projects/spine", "/groups/outer")]

    answer = ada.delete("/groups/physics")

    assert before == [200, 200]
    assert answer.status_code == 204
    assert bob.get("/projects/spine").status_code == 404
    assert bob.get("/groups/outer").status_code == 404
    assert bob.get("/groups/inner").status_code == 200
    assert [item["name"] for item in ada.get("/projects/spine/members").json["items"]] == [
        "ada",
        "outer",
    ]
    assert make_group(bob, "physics")["role"] == "owner"
    entry = AuditEntry.get((AuditEntry.action == "delete") & (AuditEntry.object_kind == "group"))
    assert entry.detail["name"] == "physics"
    assert len(entry.detail["projects"]) == len(entry.detail["groups"]) == 1
    assert out_of_step() == set()


@pytest.mark.parametrize("seed", range(2))
def test_whatever_is_done_to_groups_spicedb_follows(api: Api, seed: int) -> None:
    """After any changes it holds what the rows say, no more and no less, without a reconciler."""
    ada, dice = api.admin("ada"), random.Random(seed)
    users = ["ada", *[api.user(f"u{number}").name for number in range(3)]]
    names, projects = [f"g{number}" for number in range(4)], ["p0", "p1"]
    for project in projects:
        api.project(ada, project)
    ada.post("/compute-resources", {"name": "c", "kind": "SLURM", "project": "p0"})

    def one_of_both() -> dict[str, str]:
        return dice.choice([{"user": dice.choice(users)}, {"group": dice.choice(names)}])

    def member(place: str) -> str:
        kind, name = next(iter(one_of_both().items()))
        return f"{place}/{'members' if kind == 'user' else 'groups'}/{name}"

    def place() -> str:
        return dice.choice([f"/groups/{dice.choice(names)}", f"/projects/{dice.choice(projects)}"])

    def change() -> int:
        role = dice.choice(["owner", "manager", "admin", "member", "viewer"])
        relation = dice.choice(["user", "operator"])
        kind, name = next(iter(one_of_both().items()))
        method, path, body = dice.choice(
            [
                ("POST", "/groups", {"name": dice.choice(names)}),
                ("POST", "/groups", {"name": dice.choice(names)}),
                ("DELETE", f"/groups/{dice.choice(names)}", None),
                ("POST", f"{place()}/members", {**one_of_both(), "role": "member"}),
                ("POST", f"{place()}/members", {**one_of_both(), "role": role}),
                ("PATCH", member(place()), {"role": role}),
                ("DELETE", member(place()), None),
                ("POST", "/compute-resources/c/shares", {**one_of_both(), "relation": relation}),
                ("DELETE", f"/compute-resources/c/shares?{kind}={name}", None),
            ]
        )
        return ada.request(method, path, body).status_code

    for name in names:
        make_group(ada, name)
    answers = [change() for _ in range(150)]

    assert max(answers) < 500
    assert sum(answer < 300 for answer in answers) > 30
    assert out_of_step() == set()
    ada.delete("/projects/p1")
    ada.delete("/compute-resources/c")
    assert out_of_step() == set()
