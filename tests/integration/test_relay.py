"""The relay from the outbox to SpiceDB: idempotent, fenced, and never in the way of a revoke."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

import pytest

from airavata_scheduler.backends import relay
from airavata_scheduler.backends.relay import mark
from airavata_scheduler.backends.spicedb import Fence, Fenced, PermissionsUnavailable, spicedb
from airavata_scheduler.functions import grants
from airavata_scheduler.models import outbox, relations
from airavata_scheduler.models.database import change, execute
from airavata_scheduler.models.relations import Relationship
from airavata_scheduler.models.tables import Share, User
from tests.api import Api, LoggedIn
from tests.in_step import out_of_step
from tests.silently import (
    another_process,
    environment,
    join_project,
    leave_group,
    leave_project,
    unrelayed,
)

SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)

# Relays until it is about to mark the first batch, and dies there.
_DIES_BEFORE_THE_MARK = """
import os, signal
from airavata_scheduler.backends import relay, spicedb
from airavata_scheduler.models import database
from airavata_scheduler.models.configuration import Configuration

configuration = Configuration.read()
database.connect(configuration.database_url)
spicedb.configure(configuration)
relay.relay(before_mark=lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


def position() -> int:
    """The relay's position as SpiceDB has it."""
    found = relay.read_marks(spicedb()).position
    assert found is not None
    return found


def forget_relayed() -> None:
    """Nobody remembers that anything was relayed."""
    change("UPDATE outbox SET relayed_at = NULL")


def status(user: LoggedIn, project_id: str) -> int:
    """How the project is answered."""
    return user.get(f"/projects/{project_id}").status_code


def test_relaying_again_changes_nothing(api: Api) -> None:
    """Every entry, from the first on: what the rows say now is what SpiceDB has then."""
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine", member=bob)["id"]
    ada.delete(f"/projects/{project}/members/bob")
    before = position()

    forget_relayed()
    count = relay.relay()

    assert count == len(execute("SELECT id FROM outbox"))
    assert position() > before
    assert out_of_step() == set()
    assert relay.relay() == 0
    assert (status(ada, project), status(bob, project)) == (200, 404)


def test_an_entry_says_nothing_of_what_became_of_it(api: Api) -> None:
    """A grant that is relayed after its own end, even alone, grants nothing."""
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine", member=bob)["id"]
    ada.delete(f"/projects/{project}/members/bob")

    change("UPDATE outbox SET relayed_at = NULL WHERE revokes = FALSE")
    relay.relay()

    assert out_of_step() == set()
    assert status(bob, project) == 404


def test_a_revoke_holds_from_its_commit(api: Api) -> None:
    """In a project, in a nested group, of a share, of an administrator; nobody relayed it."""
    ada, bob, eli, kim, root = (api.user(name) for name in ("ada", "bob", "eli", "kim", "root"))
    project = api.project(ada, "spine", viewer=bob)["id"]
    outer, inner = (ada.post("/groups", {"name": name}).json["id"] for name in ("outer", "inner"))
    ada.post("/groups/outer/members", {"group": "inner"})
    ada.post("/groups/inner/members", {"user": "eli"})
    ada.post("/projects/spine/members", {"group": "outer", "role": "viewer"})
    User.update(is_admin=True).where(User.id == root.id).execute()
    grants.user_changed(root.id)
    cluster = ada.post(
        "/compute-resources", {"name": "cluster", "kind": "SLURM", "project": "spine"}
    ).json["id"]
    ada.post(f"/compute-resources/{cluster}/shares", {"user": "kim"})
    before = [status(user, project) for user in (bob, eli, root)]
    assert kim.get(f"/compute-resources/{cluster}").status_code == 200

    leave_project(project, bob.id)
    leave_group(inner, ("user", eli.id))
    with unrelayed():
        Share.delete().execute()
        grants.withdraw(("compute_resource", cluster), "user", ("user", kim.id))
    with unrelayed():
        User.update(is_admin=False).where(User.id == root.id).execute()
        grants.user_changed(root.id, revokes=True)

    assert before == [200, 200, 200]
    assert [status(user, project) for user in (bob, eli, root)] == [404, 404, 404]
    assert kim.get(f"/compute-resources/{cluster}").status_code == 404
    assert eli.get(f"/groups/{outer}").status_code == 404


def test_each_revoke_is_relayed_by_the_check_that_it_concerns(api: Api) -> None:
    """Also the group's: the group is another object than the one that is asked about."""
    ada, eli = api.user("ada"), api.user("eli")
    project = api.project(ada, "spine")["id"]
    group = ada.post("/groups", {"name": "lab"}).json["id"]
    ada.post("/groups/lab/members", {"user": "eli"})
    ada.post("/projects/spine/members", {"group": "lab", "role": "viewer"})
    before = status(eli, project), len(eli.get("/projects").json["items"])

    leave_group(group, ("user", eli.id))

    assert before == (200, 1)
    assert status(eli, project) == 404
    assert eli.get("/projects").json["items"] == []
    assert outbox.waiting(10) == []


def test_a_grant_is_seen_at_once(api: Api) -> None:
    """By whoever asks about the very object or lists, although nobody relayed it."""
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine")["id"]
    before = status(bob, project), bob.get("/projects").json["items"]

    join_project(project, bob.id)

    assert before == (404, [])
    assert [item["id"] for item in bob.get("/projects").json["items"]] == [project]
    assert status(bob, project) == 200


def test_a_relayer_that_dies_between_write_and_mark(api: Api) -> None:
    """SpiceDB has the change, the database does not know it: the next relay puts that right."""
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine", viewer=bob)["id"]
    before = position()
    leave_project(project, bob.id)

    died = subprocess.run(
        [sys.executable, "-c", _DIES_BEFORE_THE_MARK],
        env=environment(api.config),
        timeout=60,
        check=False,
    )

    assert died.returncode == -9
    assert position() == before + 1
    assert outbox.newest_position() == before
    assert len(outbox.waiting(10)) == 1
    assert status(bob, project) == 404
    assert (position(), outbox.newest_position()) == (before + 2, before + 2)
    assert out_of_step() == set()


def test_an_older_view_never_wins(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relayer read the rows, slept, and another one relayed newer ones: the first one's write is
    refused, and what it then reads anew is written.
    """
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine")["id"]
    join_project(project, bob.id)
    look = relations.true_among
    seen: list[set[Relationship]] = []
    ran: list[subprocess.CompletedProcess[str]] = []

    def look_and_sleep(keys: Iterable[Relationship]) -> set[Relationship]:
        found = look(keys)
        if not seen:
            seen.append(found)
            leave_project(project, bob.id)
            ran.append(another_process(api.config, "authz", "relay"))
        return found

    monkeypatch.setattr(relations, "true_among", look_and_sleep)
    fenced = watch_for_fences(monkeypatch)
    relay.relay()

    assert len(seen[0]) == 2, "the sleeper saw the member"
    assert ran[0].returncode == 0, ran[0].stderr
    assert fenced == [True]
    assert status(bob, project) == 404
    assert out_of_step() == set()


def watch_for_fences(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One True for each batch of this process that was fenced off."""
    batch = relay._relay_batch
    found: list[bool] = []

    def watched(*arguments: object) -> int:
        try:
            return batch(*arguments)  # type: ignore[arg-type]
        except Fenced:
            found.append(True)
            raise

    monkeypatch.setattr(relay, "_relay_batch", watched)
    return found


def test_two_relayers_between_write_and_mark(api: Api) -> None:
    """Another process relays the same entry and a newer one meanwhile; the newest token stays."""
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine")["id"]
    before = position()
    join_project(project, bob.id)

    def other() -> None:
        if position() == before + 1:
            leave_project(project, bob.id)
            ran = another_process(api.config, "authz", "relay")
            assert "Relayed: 2" in ran.stdout, ran.stderr

    relay.relay(before_mark=other)

    tokens = dict(
        execute("SELECT object_id, position FROM zed_tokens WHERE object_kind = 'project'")
    )
    assert outbox.newest_position() == position() == before + 2
    assert tokens[project] == before + 2
    assert status(bob, project) == 404
    assert out_of_step() == set()


def test_a_fence_that_does_not_hold_writes_nothing(api: Api) -> None:
    """Neither the grant nor the swap of the position."""
    ada = api.user("ada")
    project = api.project(ada, "spine")["id"]
    extra = outbox.relationship(("project", project), "owner", ("user", api.user("eve").id))
    here = position()

    for fence in (
        Fence(relationship=mark("position", str(here - 1))),
        Fence(relationship=mark("rebuild", "x")),
        Fence(relationship=mark("position", ""), absent=True),
    ):
        with pytest.raises(Fenced):
            spicedb().write([extra, mark("position", str(here + 1))], [], [fence])

    assert position() == here
    assert out_of_step() == set()


def test_an_entry_of_another_release(api: Api) -> None:
    """It names a relation that neither rows nor schema know: what stands beside it is relayed."""
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine", viewer=bob)["id"]
    formerly = outbox.relationship(("project", project), "formerly", ("user", ada.id))

    leave_project(project, bob.id)
    outbox.append([formerly], about=("project", project), revokes=True)
    grants.relay_now()

    assert outbox.waiting(1) == []
    assert (status(ada, project), status(bob, project)) == (200, 404)
    assert out_of_step() == set()


@SQLITE
def test_a_backlog_that_cannot_be_relayed_lets_nobody_in(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The revoke is the last of many: until it is relayed the answer is 503, never 200."""
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine", viewer=bob)["id"]
    for number in range(30):
        with unrelayed():
            grants.grant(("project", project), "viewer", ("user", ada.id))
        assert len(outbox.waiting(100)) == number + 1
    leave_project(project, bob.id)

    monkeypatch.setattr(relay, "BATCH_ENTRIES", 1)
    monkeypatch.setattr(relay, "WITHIN_S", 0.0)
    late = bob.get(f"/projects/{project}")
    monkeypatch.setattr(relay, "WITHIN_S", 10.0)

    assert (late.status_code, late.json["code"]) == (503, "permissions_unavailable")
    assert status(bob, project) == 404
    assert outbox.waiting(1) == []


@SQLITE
def test_whoever_is_always_outrun_gives_up_with_a_sentence(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not go on as if nothing waited."""
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine", viewer=bob)["id"]
    leave_project(project, bob.id)

    def outrun(*_: object) -> str:
        raise Fenced

    monkeypatch.setattr(spicedb(), "write", outrun)
    with pytest.raises(PermissionsUnavailable, match="on their way"):
        relay.relay()

    assert bob.get(f"/projects/{project}").status_code == 503
