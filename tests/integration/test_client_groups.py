"""`airavata group`, groups in projects and shares of resources, against the real application."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airavata_scheduler.client.errors import BadInputError, ConflictError, NotFoundError
from tests.api import LoggedIn
from tests.client_server import Ran, RunCommand, Served, command, run_here, served

__all__ = ["command", "served"]


def items(ran: Ran) -> list[dict[str, str]]:
    """What a list printed with `--json`."""
    found: list[dict[str, str]] = json.loads(ran.out)["items"]
    return found


def as_user(served: Served, user: LoggedIn, *arguments: str) -> Ran:
    """Run `airavata …` with another user's token, from a file."""
    token = served.folder / f"{user.name}.token"
    token.write_text(str(user.token), encoding="utf-8")
    return run_here(*arguments, "--token", f"@{token}", "--server", served.url)


def test_the_life_of_a_group(served: Served, command: RunCommand) -> None:
    """Made, listed, changed, deleted; `--quiet` gives the id."""
    made = command("group", "create", "physics", "--description", "All of us", "--quiet")
    listed = command("group", "list", "--json")
    changed = command("group", "update", "physics", "--name", "astro")
    shown = json.loads(command("group", "get", "astro", "--json").out)
    deleted = command("group", "delete", "astro")

    assert [ran.status for ran in (made, listed, changed, deleted)] == [0, 0, 0, 0]
    assert [item["id"] for item in items(listed)] == [made.out.strip()]
    assert (shown["description"], shown["role"]) == ("All of us", "owner")
    assert command("group", "get", "astro").status == 4


def test_members_of_a_group(served: Served, command: RunCommand) -> None:
    """Users and groups; adding a member again changes the role."""
    served.api.user("grace")
    command("group", "create", "physics")
    command("group", "create", "lab")

    first = command("group", "add-member", "physics", "grace")
    second = command("group", "add-member", "physics", "grace", "--role", "manager")
    nested = command("group", "add-member", "physics", "--group", "lab")
    members = items(command("group", "members", "physics", "--json"))
    table = command("group", "members", "physics").out
    removed = command("group", "remove-member", "physics", "grace")
    out = command("group", "remove-member", "physics", "--group", "lab")

    assert [ran.status for ran in (first, second, nested, removed, out)] == [0] * 5
    assert nested.out == "group lab is now member of physics.\n"
    assert [(member["kind"], member["name"], member["role"]) for member in members] == [
        ("user", "ada", "owner"),
        ("user", "grace", "manager"),
        ("group", "lab", "member"),
    ]
    assert "KIND" in table
    assert "lab" in table


def test_a_project_and_a_resource_get_another_name(command: RunCommand) -> None:
    """`update --name` renames, it does not take the new name for the old one."""
    command("resource", "compute", "create", "cluster", "--kind", "SLURM")

    assert command("project", "update", "spine", "--name", "rib").status == 0
    assert command("resource", "compute", "update", "cluster", "--name", "c2").status == 0
    assert command("project", "get", "rib").status == 0


@pytest.mark.parametrize("who", [[], ["grace", "--group", "lab"]])
def test_a_user_or_a_group(command: RunCommand, who: list[str]) -> None:
    """Neither and both are wrong usage, told before anything is sent."""
    for place in (["group"], ["project"]):
        for verb in ("add-member", "remove-member"):
            assert command(*place, verb, "spine", *who).status == 2
    assert command("resource", "compute", "share", "cluster", *who).status == 2


def test_a_circle_is_told_on_the_command_line(command: RunCommand) -> None:
    """Exit status 2, the way round, at most three lines."""
    for name in ("outer", "inner"):
        command("group", "create", name)
    command("group", "add-member", "outer", "--group", "inner")

    ran = command("group", "add-member", "inner", "--group", "outer")

    assert ran.status == 2
    assert "inner in outer in inner" in ran.err
    assert len(ran.err.splitlines()) <= 3


def test_a_group_in_a_project(served: Served, command: RunCommand) -> None:
    """Added, raised, listed and taken out; its people see the project meanwhile."""
    grace = served.api.user("grace")
    command("group", "create", "physics")
    command("group", "add-member", "physics", "grace")

    before = as_user(served, grace, "project", "get", "spine")
    added = command("project", "add-member", "spine", "--group", "physics", "--role", "viewer")
    raised = command("project", "add-member", "spine", "--group", "physics", "--role", "member")
    during = as_user(served, grace, "project", "get", "spine", "--json")
    members = items(command("project", "members", "spine", "--json"))
    mine = as_user(served, grace, "user", "groups", "--json")
    removed = command("project", "remove-member", "spine", "--group", "physics")
    after = as_user(served, grace, "project", "get", "spine")

    assert [ran.status for ran in (before, added, raised, during, removed, after)] == [
        *(4, 0, 0, 0, 0, 4)
    ]
    assert json.loads(during.out)["role"] == "member"
    assert [(member["kind"], member["name"]) for member in members] == [
        ("user", "ada"),
        ("group", "physics"),
    ]
    assert [(item["name"], item["role"]) for item in items(mine)] == [("physics", "member")]


def test_leaving_a_group_and_a_project(served: Served, command: RunCommand) -> None:
    """Whoever is in may go; the last owner may not: exit status 2."""
    grace = served.api.user("grace")
    command("group", "create", "physics")
    command("group", "add-member", "physics", "grace")

    left = as_user(served, grace, "group", "remove-member", "physics", "grace")
    stays = command("group", "remove-member", "physics", "ada")

    assert left.status == 0
    assert as_user(served, grace, "group", "get", "physics").status == 4
    assert (stays.status, "only owner" in stays.err) == (2, True)


def test_a_resource_is_shared_used_and_unshared(
    served: Served, command: RunCommand, tmp_path: Path
) -> None:
    """Two kinds alike: what a user of another project sees before, during and after."""
    grace = served.api.user("grace")
    (tmp_path / "data").mkdir()
    made = command(
        "resource", "compute", "create", "cluster", "--kind", "SLURM", "--for-project", "spine",
        "--endpoint", "ssh://login.example.org:22", "--json",
    )  # fmt: skip
    command(
        "resource", "storage", "create", "disk", "--path", str(tmp_path / "data"),
        "--for-project", "spine",
    )  # fmt: skip
    assert json.loads(made.out)["endpoint"] == "ssh://login.example.org:22"

    for kind, name in (("compute", "cluster"), ("storage", "disk")):
        words = ("resource", kind)
        before = as_user(served, grace, *words, "get", name)
        shared = command(*words, "share", name, "grace")
        again = command(*words, "share", name, "grace", "--json")
        raised = command(*words, "share", name, "grace", "--as", "operator")
        during = as_user(served, grace, *words, "get", name)
        listed = items(command(*words, "shares", name, "--json"))
        ended = command(*words, "unshare", name, "grace")
        after = as_user(served, grace, *words, "get", name)

        found = (before, shared, again, raised, during, ended, after)
        assert [ran.status for ran in found] == [4, 0, 0, 0, 0, 0, 4]
        assert json.loads(again.out)["relation"] == "user"
        assert [(share["name"], share["relation"]) for share in listed] == [
            ("grace", "operator"),
            ("grace", "user"),
        ]
        assert command(*words, "unshare", name, "grace").status == 4
        assert "With nobody." in command(*words, "shares", name).err


def test_groups_in_the_sdk(served: Served) -> None:
    """The same with records; errors are those of the tree."""
    served.api.user("grace")
    client = served.client()
    physics = client.groups.create(name="physics")
    client.groups.create(name="lab")

    added = client.groups.add_member("physics", "grace", role="manager")
    changed = client.groups.change_member("physics", "grace", "owner")
    client.groups.add_member("physics", member_group="lab")
    with pytest.raises(ConflictError, match="inside itself"):
        client.groups.add_member("lab", member_group="physics")
    with pytest.raises(BadInputError, match="one of the two"):
        client.groups.add_member("lab")
    client.projects.add_member("spine", group="physics", role="viewer")

    assert (added.role, changed.role) == ("manager", "owner")
    assert added.created_at is not None
    assert [member.name for member in client.groups.members(physics.id)] == ["ada", "grace", "lab"]
    assert {group.name for group in client.users.my_groups()} == {"physics", "lab"}
    with pytest.raises(NotFoundError):
        client.groups.get("chemistry")


def test_shares_in_the_sdk(served: Served) -> None:
    """Share with a group, list, end."""
    client = served.client()
    client.groups.create(name="physics")
    client.compute.create(name="cluster", kind="SLURM", project="spine")

    made = client.compute.share("cluster", group="physics", relation="user")
    listed = list(client.compute.shares("cluster"))
    client.compute.unshare("cluster", group="physics")

    assert listed == [made]
    assert list(client.compute.shares("cluster")) == []
    with pytest.raises(NotFoundError, match="not shared"):
        client.compute.unshare("cluster", group="physics")
    with pytest.raises(NotFoundError):
        client.compute.share("clusters", group="physics", relation="user")
